"""What one core reaches: GFLOP/s of a matrix product and of a convolution."""

import json
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp

N, SIDE, CHANNELS = 1024, 16, 256


def main() -> None:
  """Answers each line."""
  a = jnp.ones((N, N))
  x, w = (
    jnp.ones((16, SIDE, SIDE, CHANNELS)),
    jnp.ones((3, 3, CHANNELS, CHANNELS)),
  )

  def convolve(x: Any, w: Any) -> Any:
    order = ('NHWC', 'HWIO', 'NHWC')
    return jax.lax.conv_general_dilated(
      x, w, (1, 1), 'SAME', dimension_numbers=order
    )

  ways = {
    'product': (jax.jit(jnp.matmul), (a, a), 2 * N**3),
    'conv': (jax.jit(convolve), (x, w), 2 * 9 * x.size * CHANNELS),
  }
  for f, args, _ in ways.values():
    f(*args).block_until_ready()
  print(json.dumps({'jax': jax.__version__}), flush=True)
  for _ in sys.stdin:
    rates = {}
    for name, (f, args, flops) in ways.items():
      before = time.process_time()
      for _ in range(3):
        f(*args).block_until_ready()
      rates[name] = 3e-9 * flops / (time.process_time() - before)
    print(json.dumps(rates), flush=True)


if __name__ == '__main__':
  main()
