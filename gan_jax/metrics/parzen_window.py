"""Parzen-window log-likelihood, by the protocol of the 2014 paper.

`log p(x) = log mean_i exp(-|x - s_i|^2 / 2 sigma^2) - d log(sigma sqrt(2 pi))`

over generated samples `s_i`. The kernel's standard deviation is that of ten
between .1 and 1 which makes held-out training images likeliest. In the paper:
10,000 samples; the first 1,000 of MNIST's training images 50,000 to 59,999 for
sigma; the mean over the 10,000 test images, in [0, 1], with its standard error
over these. In many dimensions it is a poor estimate of the likelihood (Theis et
al. 2016, arXiv:1511.01844): it is here to be held against published values.

Reference: Goodfellow et al. 2014, arXiv:1406.2661, section 5 and table 1;
Breuleux et al. 2011 for the estimator.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float64
from numpy.typing import ArrayLike, NDArray

from gan_jax.metrics import arrays, blocks
from gan_jax.metrics.base import Checks, Example, Metric

SIGMAS = np.logspace(-1, 0, 10)

Table = NDArray[np.floating]


@jax.jit
def _add_block(
  greatest: Float64[Array, 'sigmas rows'],
  total: Float64[Array, 'sigmas rows'],
  a: Float[Array, 'rows dim'],
  b: Float[Array, 'columns dim'],
  centre: Float64[Array, '1 dim'],
  valid: Bool[Array, ' columns'],
  sharpness: Float64[Array, ' sigmas'],
) -> tuple[Float64[Array, 'sigmas rows'], Float64[Array, 'sigmas rows']]:
  """Running log-sum-exp over samples, of each standard deviation.

  Args:
    greatest: exponent so far.
    total: sum of the exponentials over that of the greatest.
    a: images.
    b: samples.
    centre: that both are moved to.
    valid: which samples are no padding.
    sharpness: 1 / 2 sigma^2.
  """
  squares = blocks.squared_distances(a, b, centre)
  squares = jnp.where(valid[None, :], squares, jnp.inf)

  def add(state: tuple[Array, Array, Array]) -> tuple[Array, Array]:
    greatest, total, sharpness = state
    exponent = -sharpness * squares
    greater = jnp.maximum(greatest, exponent.max(axis=1))
    sums = jnp.exp(exponent - greater[:, None]).sum(axis=1)
    return greater, total * jnp.exp(greatest - greater) + sums

  return jax.lax.map(add, (greatest, total, sharpness))


def log_likelihood(
  samples: Table, x: Table, sigmas: NDArray[np.float64]
) -> NDArray[np.float64]:
  """Of each image under each kernel, (sigmas, images), in nats."""
  rows = blocks.rows_for(len(samples), len(x))
  dim = x.shape[1]
  logs = np.empty((len(sigmas), len(x)))
  sample_blocks = blocks.split(samples, rows)
  with blocks.x64():
    centre = blocks.centre_of(samples)
    sharpness = 1 / (2 * sigmas**2)
    for a in blocks.split(x, rows):
      # Not infinity, which taken from itself is no number.
      greatest = jnp.full((len(sigmas), rows), np.finfo(np.float64).min)
      total = jnp.zeros_like(greatest)
      for b in sample_blocks:
        valid = np.arange(rows) < b.filled
        greatest, total = _add_block(
          greatest, total, a.x, b.x, centre, valid, sharpness
        )
      logs[:, a.rows] = np.asarray(greatest + jnp.log(total))[:, : a.filled]
  scale = dim * np.log(sigmas * math.sqrt(2 * math.pi)) + math.log(len(samples))
  return logs - scale[:, None]


def _as_unit(argument: str, values: ArrayLike) -> Table:
  """Images as vectors in [0, 1]."""
  x = np.asarray(values)
  if x.dtype == np.uint8:
    x = x.astype(np.float32) / 255
  x = x.reshape(len(x), -1) if x.ndim > 2 else x
  table = arrays.as_table(argument, x, 2)
  low, high = table.min(), table.max()
  if low < 0 or high > 1:
    remedy = f'is in [{low:.3g}, {high:.3g}]; give uint8, or pixels in [0, 1]'
    raise arrays.fault(argument, table, remedy)
  return table


def parzen(
  real: ArrayLike,
  fake: ArrayLike,
  *,
  validation: ArrayLike,
  seed: int = 0,
  sigmas: ArrayLike = SIGMAS,
) -> dict[str, float]:
  """Mean log-likelihood of real images under generated samples.

  Images are uint8, or floats in [0, 1]; (n, height, width, channels) or (n,
  pixels).

  Args:
    real: what is measured: test images, 10,000 in the paper.
    fake: generated samples, 10,000 in the paper.
    validation: real images that the kernel's standard deviation is chosen on;
      1,000 in the paper.
    seed: not read: nothing is drawn.
    sigmas: the standard deviations that are tried.

  Returns:
    parzen: the mean, in nats, higher is better; parzen_error: its standard
    error over real images; parzen_sigma: the chosen standard deviation.

  Raises:
    ArgumentError: if pixels are not in [0, 1], or shapes differ.

  >>> x = np.zeros((5, 4))
  >>> scores = parzen(x, x, validation=x)  # -4 log(.1 sqrt(2 pi))
  >>> round(scores['parzen'], 4), scores['parzen_sigma']
  (5.5346, 0.1)
  """
  del seed
  tests, samples = _as_unit('real', real), _as_unit('fake', fake)
  held_out = _as_unit('validation', validation)
  if not tests.shape[1] == samples.shape[1] == held_out.shape[1]:
    sizes = f'{tests.shape[1]} pixels, `fake` {samples.shape[1]} and'
    remedy = f'has {sizes} `validation` {held_out.shape[1]}; give one shape'
    raise arrays.fault('real', tests, remedy)
  choices = np.asarray(sigmas, np.float64)
  means = log_likelihood(samples, held_out, choices).mean(axis=1)
  sigma = choices[[int(means.argmax())]]
  (logs,) = log_likelihood(samples, tests, sigma)
  return {
    'parzen': float(logs.mean()),
    'parzen_error': float(logs.std() / math.sqrt(len(logs))),
    'parzen_sigma': float(sigma[0]),
  }


def _examples() -> tuple[Example, ...]:
  """All samples in one corner, all images in the opposite one."""
  fake, real = np.zeros((3, 2000)), np.ones((2, 2000))
  scores = {
    'parzen': -2000 / 0.02 - 2000 * math.log(0.1 * math.sqrt(2 * math.pi)),
    'parzen_error': 0,
    'parzen_sigma': 0.1,
  }
  options = {'sigmas': [0.1]}
  needs = {'validation': real}
  return (Example(fake, scores, real, needs, options),)


PARZEN = Metric(
  'parzen',
  parzen,
  {'parzen': 'higher', 'parzen_error': '', 'parzen_sigma': ''},
  sees='images',
  needs=('validation',),
  checks=Checks(_examples),
)
