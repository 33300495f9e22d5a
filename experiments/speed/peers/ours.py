"""Our side of a row, as a process that `measure.py` speaks with.

  python ours.py ROW [--check=FILE]

With `--check` it writes weights, one step's draws, losses and gradients, for
`peer.py` to compare with. Then it answers each line with CPU-ms a step.
"""

import json
import sys
import time
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from rows import ROWS, Row

from gan_jax.config.resolve import make_trainer
from gan_jax.game.game import Batch, draw
from gan_jax.game.streams import stream
from gan_jax.networks import conv as conv_lib
from gan_jax.networks import layers, resnet


def flat(player: str, tree: Any) -> dict[str, Any]:
  """Arrays by path."""
  paths = flatten_dict(tree, sep='/')
  return {
    f'{player}/{k.removeprefix("batch_stats/")}': v for k, v in paths.items()
  }


def check(trainer: Any, state: Any, row: Row, path: str) -> None:
  """One step's losses and gradients, and all that they are functions of.

  Without dropout, whose masks the two cannot share.
  """
  shape = (1, row.batch, *row.shape)
  x = np.random.default_rng(2).uniform(-1, 1, shape).astype(np.float32)
  real = Batch(jnp.asarray(x)[0])
  key = stream(state.key, 'step', 0)
  keys = {'d': stream(key, 'd', 0), 'g': stream(key, 'g', 0)}
  updates = trainer.updates(state, row.batch)
  found: dict[str, Any] = {'real': x[0]}
  found |= flat('p/g', state.g.params) | flat('p/d', state.d.params)
  found |= flat('s/g', state.g.stats) | flat('s/d', state.d.stats)
  for player, loss in (('d', updates.d_gradient), ('g', updates.g_gradient)):
    drawn = draw(trainer.game, row.batch, keys[player])
    with mock.patch.object(nn.Dropout, '__call__', lambda self, x: x):
      gradient = jax.jit(loss)(state, real, keys[player])
    found[f'z/{player}'] = drawn.z
    found[f'loss/{player}'] = gradient.logs[f'{player}/loss']
    found |= flat(f'grad/{player}', gradient.grads)
  for name, term in trainer.game.acting('d').items():
    own = stream(stream(keys['d'], 'regularizers'), name)
    found['epsilon'] = jax.random.uniform(own, (row.batch,))
    found['weight'] = np.float32(term.strength)
  np.savez(path, **jax.tree.map(np.asarray, found))


def flops(trainer: Any, state: Any, row: Row) -> float:
  """Of one step with plain convolutions, as XLA counts them."""
  fast = {
    (module, name): getattr(module, name)
    for module in (layers, resnet)
    for name in ('conv', 'conv_transpose')
  }
  for module, name in fast:
    setattr(
      module,
      name,
      getattr(conv_lib, {'conv': 'plain'}.get(name, 'plain_transpose')),
    )
  try:
    k = trainer.real_batches
    batch = jax.ShapeDtypeStruct((k, row.batch, *row.shape), jnp.float32)
    shapes = jax.eval_shape(lambda: state)
    cost = jax.jit(lambda s, b: trainer.step(s, b)).lower(shapes, batch)
    return float(cost.cost_analysis()['flops'])
  finally:
    for (module, name), f in fast.items():
      setattr(module, name, f)


def main(name: str, path: str = '') -> None:
  """Answers."""
  row = ROWS[name]
  trainer = make_trainer(row.shape, **row.options)
  state = jax.jit(trainer.init)(jax.random.key(0))
  random = np.random.default_rng(0)
  data = random.uniform(-1, 1, (row.data, *row.shape)).astype(np.float32)

  def run(state: Any, data: Any, places: Any) -> Any:
    def body(state: Any, place: Any) -> Any:
      return trainer.step(state, data[place])

    return jax.lax.scan(body, state, places)

  def places() -> Any:
    shape = (row.scanned, trainer.real_batches, row.batch)
    return random.integers(0, row.data, shape, np.int32)

  data, before = jnp.asarray(data), time.process_time()
  jitted = jax.jit(run, donate_argnums=0)
  program = jitted.lower(state, data, places()).compile()
  compiled = time.process_time() - before
  for _ in range(-(-row.warm // row.scanned)):
    state, _ = jax.block_until_ready(program(state, data, places()))
  if path:
    check(trainer, state, row, path)
  count = flops(trainer, state, row)
  told = {'compile_sec': compiled, 'flops': count, 'jax': jax.__version__}
  print(json.dumps(told), flush=True)
  for _ in sys.stdin:
    before = time.process_time()
    for _ in range(row.steps // row.scanned):
      state, _ = program(state, data, places())
    jax.block_until_ready(state)
    took = 1e3 * (time.process_time() - before) / row.steps
    print(json.dumps({'ms': took}), flush=True)


if __name__ == '__main__':
  main(*(word.removeprefix('--check=') for word in sys.argv[1:]))
