"""The error of this folder."""


class DataError(ValueError):
  """Data that cannot be had or used; the message names flag, value, remedy."""

  exit_code = 1


class DataFlagError(DataError):
  """As `DataError`, where a flag is at fault rather than the data."""

  exit_code = 2
