"""Placeholder until the labels branch is merged."""

AUGMENTATIONS = {}


def augment(x, key, policies):
  raise NotImplementedError


def consistency_view(x, key):
  raise NotImplementedError
