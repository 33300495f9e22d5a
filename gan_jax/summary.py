"""What a run would be made of: parameters, and the work of a step."""

from typing import Any

import jax

from gan_jax.config import Config
from gan_jax.runs import build
from gan_jax.state import count_parameters
from gan_jax.step import make_train_step


def _tables(params: Any) -> list[tuple[str, str, int]]:
  """(path, shape, count) of every array of a tree."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(params)
  return [
    (
      '/'.join(str(key.key) for key in path),
      'x'.join(map(str, x.shape)) or 'scalar',
      x.size,
    )
    for path, x in leaves
  ]


def summarise(config: Config) -> str:
  """Parameters of both networks, and the FLOPs of one step.

  The FLOPs are what XLA counts before it optimises, for all moves of a step;
  a step of several moves of one player is counted with one of them, as XLA
  counts the body of a loop once.

  Raises:
    ConfigError, DataError, NetworkError: as training would.
  """
  parts = build(config)
  state = jax.eval_shape(parts.template)
  lines = []
  for player, params in (('G', state.g.params), ('D', state.d.params)):
    rows = _tables(params)
    wide = max(len(path) for path, _, _ in rows)
    lines.append(f'{player}: {count_parameters(params):,} parameters')
    lines += [f'  {p:{wide}}  {s:>14}  {n:>12,}' for p, s, n in rows]
  item = jax.eval_shape(lambda: _real(parts))
  step = jax.jit(make_train_step(parts.plan))
  cost: Any = step.lower(state, parts.hyper, item).cost_analysis()
  flops = cost['flops']
  lines.append(
    f'a step of --batch_size={config.batch_size}: {flops / 1e9:,.3f} GFLOP'
  )
  return '\n'.join(lines)


def _real(parts: Any) -> Any:
  """Real batches of one step, of the right shapes."""
  import jax.numpy as jnp

  plan = parts.plan
  shape = (plan.real_batches, plan.batch_size)
  x = jnp.zeros((*shape, *parts.dataset.shape))
  if not plan.game.networks.classes:
    return x
  return x, jnp.zeros(shape, jnp.int32)
