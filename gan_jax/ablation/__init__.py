"""Ablations: many cells and seeds, trained as few programs, and compared."""

from typing import Any


def __getattr__(name: str) -> Any:
  if name == 'ablate':  # imports JAX, which planning does without
    from gan_jax.ablation.api import ablate

    return ablate
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
