"""The errors of this folder."""


class FeatureError(ValueError):
  """Features that cannot be had; the message names flag, value, remedy."""

  exit_code = 1


class FeatureFlagError(FeatureError):
  """As `FeatureError`, where a flag is at fault."""

  exit_code = 2
