"""Conformance tests of components, for those of this package and for plug-ins.

Each function takes one object and raises an AssertionError that says in words
what it lacks or breaks. Those of a game's components return, in words, what an
object does not say of itself (a reference, an equilibrium), so that it was not
checked.
"""

from gan_jax.testing.augmentations import (
  check_augmentation as check_augmentation,
)
from gan_jax.testing.densities import check_density as check_density
from gan_jax.testing.metrics import check_metric as check_metric
from gan_jax.testing.networks import check_networks as check_networks
from gan_jax.testing.objectives import check_objective as check_objective
from gan_jax.testing.optimizers import check_optimizer as check_optimizer
from gan_jax.testing.regularizers import check_regularizer as check_regularizer
from gan_jax.testing.schedules import check_schedule as check_schedule
