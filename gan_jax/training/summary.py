"""What a run would be made of: parameters, and the work of a step."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from gan_jax.config.schema import Config
from gan_jax.game import schedules
from gan_jax.game.plan import TOGETHER
from gan_jax.game.state import count_parameters
from gan_jax.game.step import make_train_step
from gan_jax.training.setup import build


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

  The FLOPs are what XLA counts before it optimises, for all moves of a step.
  What moves at one point share is counted for each, and a lazy penalty as if it
  were due: there the number is a bound from above. The moves that an unrolled G
  looks ahead are a loop, whose body XLA counts once: there it is a bound from
  below.

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
  flops = _flops(parts, state)
  lines.append(
    f'a step of --batch_size={config.batch_size}: {_bound(parts.plan)}'
    f'{flops:,.0f} FLOPs'
  )
  return '\n'.join(lines)


def _bound(plan: Any) -> str:
  """How the FLOPs that are counted stand to those of a step on average."""
  if plan.schedule == 'unrolled':
    # With a lazy penalty it is neither: so much too few, so much too many.
    return 'at least ' if plan.penalty_every == 1 else 'in the order of '
  most = plan.schedule in TOGETHER or plan.penalty_every > 1
  return 'at most ' if most else ''


def _flops(parts: Any, state: Any) -> float:
  """Of one step: with one move each, and what further moves add."""
  plan, hyper, sample = parts.plan, parts.hyper, parts.dataset.shape
  once = dataclasses.replace(plan, d_steps=1, g_steps=1)

  def counted(f: Any, *args: Any) -> float:
    cost: Any = jax.jit(f).lower(*args).cost_analysis()
    return float(cost['flops'])

  def gradient(find: Any) -> float:
    def one(state: Any, item: Any, key: Any) -> Any:
      real = schedules.real_batch(plan, item, key)
      return find(plan, state, hyper, real, jax.random.clone(key))

    item = jax.eval_shape(
      lambda: jax.tree.map(lambda x: x[0], _real(once, sample))
    )
    return counted(one, state, item, state.key)

  total = counted(
    make_train_step(once),
    state,
    hyper,
    jax.eval_shape(lambda: _real(once, sample)),
  )
  if plan.d_steps > 1:
    total += (plan.d_steps - 1) * gradient(schedules.d_gradient)
  if plan.g_steps > 1:
    total += (plan.g_steps - 1) * gradient(schedules.g_gradient)
  return total


def _real(plan: Any, sample: tuple[int, ...]) -> Any:
  """Real batches of one step, of the right shapes."""
  shape = (plan.real_batches, plan.batch_size)
  x = jnp.zeros((*shape, *sample))
  if not plan.game.networks.classes:
    return x
  return x, jnp.zeros(shape, jnp.int32)
