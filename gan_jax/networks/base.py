"""What everything else sees of a network: two pure functions of arrays."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

# Arrays in dicts, lists and tuples; no class of any framework.
Params = Mapping[str, Any] | Any
Stats = Mapping[str, Any] | Any
# Classes of labelled samples.
Label = Int[Array, 'n'] | None
# Draws the noise of one sample: `(key, shape) -> array`.
Latent = Callable[[Key[Array, ''], tuple[int, ...]], Array]


class Net(NamedTuple):
  """One network as two pure functions.

  Both work on the global batch, can be vmapped over members, and are
  reverse-differentiable twice in `x` and `params`.

  Attributes:
    init: `key -> (params, stats)`; stats (running statistics and the like) is
      an empty dict where there are none. Parameters are float32.
    apply: `(params, stats, x, *, train, key=None, label=None) -> (output,
      stats)`. With `train` batch statistics and dropout are used and the moved
      statistics come back; without, the same ones do. `label` are classes (n,)
      int32, or None.
  """

  init: Callable[[Key[Array, '']], tuple[Params, Stats]]
  apply: Callable[..., tuple[Any, Stats]]


class Networks(NamedTuple):
  """A generator, a discriminator, and the noise that the former starts from.

  Attributes:
    generator: (n, latent_dim) -> (n, *sample_shape); images in [-1, 1].
    discriminator: (n, *sample_shape) -> logits (n,), or a pair of them and a
      dict of further outputs by name ("heads"). With `Game(packing=k)` its
      samples are k of them joined along the last axis.
    latent_dim: dimensions of the noise.
    sample_shape: of one sample: (height, width, channels), or (dim,).
    latent: `(key, shape) -> array`: draws the noise of one sample, of shape
      (latent_dim,); called under vmap.
    classes: of the integer labels that both networks receive; 0 for none, and
      then label is None.
    class_counts: how often G is asked for each class, such as their counts in
      the training data; empty: for all equally often.
  """

  generator: Net
  discriminator: Net
  latent_dim: int
  sample_shape: tuple[int, ...]
  latent: Latent = jax.random.normal
  classes: int = 0
  class_counts: tuple[int, ...] = ()


def packed_shape(shape: tuple[int, ...], packing: int) -> tuple[int, ...]:
  """Shape of `packing` samples joined along their last axis.

  Reference: Lin et al. 2018 (PacGAN), arXiv:1712.04086, section 3.
  """
  return (*shape[:-1], shape[-1] * packing)


def wide(x: Array) -> Array:
  """A float array as float32, or as float64 where it is; others as they are."""
  if not jnp.issubdtype(jnp.result_type(x), jnp.floating):
    return x
  return jnp.asarray(x, jnp.promote_types(jnp.result_type(x), jnp.float32))
