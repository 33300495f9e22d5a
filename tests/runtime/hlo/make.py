"""Compiles the small programs whose texts the tests read.

python tests/runtime/hlo/make.py h100 h100:2x4    # with jax[cuda12]
python tests/runtime/hlo/make.py v5e:2x4          # with jax[tpu]
"""

import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.runtime import cards, sharding, topology

# Where the text says from which line an instruction comes, which nobody reads.
NOISE = re.compile(
  r', (?:metadata|frontend_attributes|sharding)=\{(?:"[^"]*"|[^"}])*\}'
)


def loss(params, x):
  """One convolution, statistics of the batch, one product."""
  h = jax.lax.conv_general_dilated(
    x,
    params['conv'],
    (2, 2),
    ((1, 1), (1, 1)),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  h = h - h.mean((0, 1, 2))
  h = jax.nn.leaky_relu(h).reshape(len(h), -1)
  return jnp.mean(jnp.square(h @ params['dense']))


def advance(params, x, count):
  """Steps down the slope, one in four of them a longer one."""

  def body(carry):
    i, params = carry
    grads = jax.grad(loss)(params, x[i])
    scale = jax.lax.cond(i % 4 == 0, lambda: jnp.sum(x[i] ** 2), lambda: 1.0)
    grads = jax.lax.fori_loop(
      0, 3, lambda _, g: jax.tree.map(lambda a: jnp.sort(a, 0), g), grads
    )
    new = jax.tree.map(lambda p, g: p - scale * g, params, grads)
    return i + 1, new

  return jax.lax.while_loop(lambda c: c[0] < count, body, (0, params))[1]


def main():
  """Writes a text for each target."""
  topology.use_no_device()
  for name in sys.argv[1:]:
    target = cards.parse_target(name)
    mesh = topology.make_mesh(target)
    whole = sharding.replicated(mesh)

    def put(shape, where=whole):
      return jax.ShapeDtypeStruct(shape, np.float32, sharding=where)

    params = {'conv': put((4, 4, 3, 8)), 'dense': put((128, 5))}
    rows = jax.sharding.PartitionSpec(None, 'data')
    x = put((6, 16, 8, 8, 3), sharding.placed(mesh, rows))
    lowered = jax.jit(advance).lower(params, x, np.int32(0))
    text = NOISE.sub('', topology.compile_lowered(lowered, target).as_text())
    path = pathlib.Path(__file__).with_name(f'{name.replace(":", "_")}.txt')
    path.write_text(text)


if __name__ == '__main__':
  main()
