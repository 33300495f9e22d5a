"""Parzen-window log-likelihood, by the protocol of the 2014 paper.

`log p(x) = log mean_i exp(-|x - s_i|^2 / 2 sigma^2) - d log(sigma sqrt(2 pi))`

over generated samples `s_i`. The kernel's deviation is that of ten between .1
and 1 which makes held-out training images likeliest. In the paper: 10,000
samples; the first 1,000 of MNIST's training images 50,000 to 59,999 for sigma;
the mean over the 10,000 test images, in [0, 1], with its standard error over
these. In many dimensions it is a poor estimate of the likelihood (Theis et al.
2016, arXiv:1511.01844): it is here to be held against published values.

Reference: Goodfellow et al. 2014, arXiv:1406.2661, section 5 and table 1;
Breuleux et al. 2011 for the estimator.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from gan_jax.metrics import arrays, blocks

SIGMAS = np.logspace(-1, 0, 10)


@jax.jit
def _merge(
  best: Any, total: Any, a: Any, b: Any, centre: Any, real: Any, sharp: Any
) -> Any:
  """Running log-sum-exp over samples, of each deviation.

  Args:
    best: greatest exponent so far, (deviations, rows).
    total: sum of the exponentials over that of the greatest.
    a: images (rows, dim).
    b: samples (columns, dim).
    centre: (1, dim).
    real: which samples are no padding, (columns,).
    sharp: 1 / 2 sigma^2, (deviations,).
  """
  away = jnp.where(real[None, :], blocks.squared(a, b, centre), jnp.inf)

  def one(state: Any) -> Any:
    best, total, sharp = state
    exponent = -sharp * away
    more = jnp.maximum(best, exponent.max(axis=1))
    sums = jnp.exp(exponent - more[:, None]).sum(axis=1)
    return more, total * jnp.exp(best - more) + sums

  return jax.lax.map(one, (best, total, sharp))


def log_likelihood(
  samples: NDArray[Any], x: NDArray[Any], sigmas: NDArray[np.float64]
) -> NDArray[np.float64]:
  """Of each image under each kernel, (deviations, images), in nats."""
  rows = blocks.rows_for(len(samples), len(x))
  dim = x.shape[1]
  found = np.empty((len(sigmas), len(x)))
  parts = blocks.split(samples, rows)
  with blocks.x64():
    centre, sharp = blocks.centre_of(samples), 1 / (2 * sigmas**2)
    for a in blocks.split(x, rows):
      # Not infinity, which taken from itself is no number.
      best = jnp.full((len(sigmas), rows), np.finfo(np.float64).min)
      total = jnp.zeros_like(best)
      for b in parts:
        real = np.arange(rows) < b.filled
        best, total = _merge(best, total, a.x, b.x, centre, real, sharp)
      found[:, a.rows] = np.asarray(best + jnp.log(total))[:, : a.filled]
  scale = dim * np.log(sigmas * math.sqrt(2 * math.pi)) + math.log(len(samples))
  return found - scale[:, None]


def _unit(name: str, x: Any) -> NDArray[Any]:
  """Images as vectors in [0, 1]."""
  x = np.asarray(x)
  if x.dtype == np.uint8:
    raise ValueError(
      f'{name} is uint8: give numbers in [0, 1], pixels over 255'
    )
  x = arrays.vectors(name, x.reshape(len(x), -1) if x.ndim > 2 else x, 2)
  if x.min() < 0 or x.max() > 1:
    raise ValueError(
      f'{name} is in [{x.min():.3g}, {x.max():.3g}]: give pixels in [0, 1]'
    )
  return x


def parzen(
  samples: Any, validation: Any, test: Any, *, sigmas: Any = SIGMAS
) -> dict[str, float]:
  """Mean log-likelihood of test images under generated samples.

  Args:
    samples: generated, in [0, 1], (n, dim) or images; 10,000 in the paper.
    validation: what the deviation is chosen on; 1,000 in the paper.
    test: what is measured; 10,000 in the paper.
    sigmas: the deviations that are tried.

  Returns:
    parzen: the mean, in nats; parzen_error: its standard error over test
    images; parzen_sigma: the chosen deviation.

  Raises:
    ValueError: if pixels are not in [0, 1], or shapes differ.
  """
  sets = ('samples', samples), ('validation', validation), ('test', test)
  samples, validation, test = (_unit(name, x) for name, x in sets)
  if not samples.shape[1] == validation.shape[1] == test.shape[1]:
    raise ValueError(
      f'samples, validation and test have {samples.shape[1]},'
      f' {validation.shape[1]} and {test.shape[1]} pixels: give one shape'
    )
  sigmas = np.asarray(sigmas, np.float64)
  means = log_likelihood(samples, validation, sigmas).mean(axis=1)
  sigma = sigmas[[int(means.argmax())]]
  (found,) = log_likelihood(samples, test, sigma)
  return {
    'parzen': float(found.mean()),
    'parzen_error': float(found.std() / math.sqrt(len(found))),
    'parzen_sigma': float(sigma[0]),
  }
