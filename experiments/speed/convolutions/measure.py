"""Forms of 4x4 convolutions of stride 2 on CPU, by shape: what the rule is of.

CPU-ms of a convolution, its transpose in the images and that in the kernel, 64
images, inside a scan: by phases and by minimal filtering, and for few channels
by added taps. Alternating rounds; writes `results.csv`.

  taskset -c 0 python experiments/speed/convolutions/measure.py
"""

import csv
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.networks import conv_cpu as forms

HERE = pathlib.Path(__file__).parent
N, PAD, SCANNED, ROUNDS = 64, (1, 1), 3, 5
SHAPES = (  # side of the larger images, channels in and out
  (32, 3, 64),
  (28, 1, 64),
  (16, 32, 32),
  (8, 64, 64),
  (14, 64, 128),
  (16, 64, 128),
  (32, 64, 128),
  (8, 128, 256),
  (16, 128, 256),
)


def scanned(f: Callable[..., Any], args: Sequence[Any]) -> Callable[[], Any]:
  """Some calls in one program, none of which can be left out."""

  def run(args: Any) -> Any:
    def body(carry: Any, i: Any) -> Any:
      changed = [
        jax.lax.dynamic_update_slice(
          x, jnp.full((1,) * x.ndim, 1e-9 * i), (i % 2,) + (0,) * (x.ndim - 1)
        )
        for x in carry[0]
      ]
      return (changed, f(*changed)), None

    start = jax.tree.map(
      lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(f, *args)
    )
    return jax.lax.scan(body, (list(args), start), jnp.arange(SCANNED))[0][1]

  program = jax.jit(run)
  return lambda: jax.block_until_ready(program(args))


def ways(side: int, c: int, f: int) -> dict[str, tuple[Any, Sequence[Any]]]:
  """Each form of each function, and its arguments."""
  random = np.random.default_rng(0)

  def draw(*shape: int) -> Any:
    return jnp.asarray(random.normal(size=shape), jnp.float32)

  x, y = draw(N, side, side, c), draw(N, side // 2, side // 2, f)
  w, size = draw(4, 4, c, f), (side, side)
  found: dict[str, tuple[Any, Sequence[Any]]] = {
    'conv, plain': (
      lambda x, w: forms._convolve(x, w, 2, PAD, PAD),
      (x, w),
    ),
    'transpose, phases': (
      lambda y, w: forms._phases(y, w, 2, PAD, size),
      (y, w),
    ),
    'kernel, batch as channels': (
      lambda x, y: forms._batch_as_channels(x, y, 2, PAD, (4, 4)),
      (x, y),
    ),
  }
  if c <= forms.NARROW:
    found['transpose, added taps'] = (
      lambda y, w: forms._added_taps(y, w, 2, PAD, size),
      (y, w),
    )
    return found
  return found | {
    'conv, minimal': (lambda x, w: forms._minimal(x, w, PAD), (x, w)),
    'transpose, minimal': (
      lambda y, w: forms._minimal_transpose(y, w, PAD, size),
      (y, w),
    ),
    'kernel, minimal': (lambda x, y: forms._minimal_kernel(x, y, PAD), (x, y)),
  }


def main() -> None:
  """Measures all shapes."""
  rows = []
  for side, c, f in SHAPES:
    runs = {k: scanned(*v) for k, v in ways(side, c, f).items()}
    times: dict[str, list[float]] = {k: [] for k in runs}
    for k in range(ROUNDS + 1):
      for name, run in runs.items():
        before = time.process_time()
        run()
        if k:  # the first compiles
          took = 1e3 * (time.process_time() - before) / SCANNED
          times[name].append(took)
    gflop = 2e-9 * N * (side // 2) ** 2 * 16 * c * f
    for name, ms in times.items():
      row = dict(side=side, channels=c, features=f, form=name)
      row |= dict(least=f'{min(ms):.3f}', median=f'{statistics.median(ms):.3f}')
      row |= dict(most=f'{max(ms):.3f}', gflops=f'{1e3 * gflop / min(ms):.1f}')
      print(row, flush=True)
      rows.append(row)
  with open(HERE / 'results.csv', 'w', newline='') as file:
    writer = csv.DictWriter(file, list(rows[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)


if __name__ == '__main__':
  main()
