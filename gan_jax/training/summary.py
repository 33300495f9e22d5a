"""The summary of a run before it is trained: parameters, work of a step."""

import dataclasses
from typing import Any

import jax

from gan_jax.config.schema import Config
from gan_jax.game.game import Batch
from gan_jax.game.schedules import Alternating, Unrolled
from gan_jax.game.state import count_parameters
from gan_jax.training.setup import Setup, build


def _tables(params: Any) -> list[tuple[str, str, int]]:
  """(path, shape, count) of every array of a tree."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(params)
  return [
    (
      jax.tree_util.keystr(path, simple=True, separator='/'),
      'x'.join(map(str, x.shape)) or 'scalar',
      x.size,
    )
    for path, x in leaves
  ]


def summarise(config: Config) -> str:
  """Parameters of both networks, and the FLOPs of one step.

  The FLOPs are what XLA counts before it optimises, for all updates of a step.
  What two updates at one point share is counted for each, and a lazy penalty as
  if it were due: there the number is a bound from above. The updates that an
  unrolled G looks ahead are a loop, whose body XLA counts once: there it is a
  bound from below.

  Raises:
    ArgumentError, DataError: as training would.
  """
  setup = build(config)
  lines = []
  state = setup.shapes
  for player, params in (('G', state.g.params), ('D', state.d.params)):
    rows = _tables(params)
    wide = max(len(path) for path, _, _ in rows)
    lines.append(f'{player}: {count_parameters(params):,} parameters')
    lines += [f'  {p:{wide}}  {s:>14}  {n:>12,}' for p, s, n in rows]
  lines.append(
    f'a step of --batch_size={config.batch_size}: {_bound(setup)}'
    f'{_flops(setup):,.0f} FLOPs'
  )
  return '\n'.join(lines)


def _bound(setup: Setup) -> str:
  """How the FLOPs that are counted stand to those of a step on average."""
  schedule = setup.trainer.schedule
  lazy = any(t.lazy > 1 for t in setup.trainer.game.acting('d').values())
  if isinstance(schedule, Unrolled):
    # With a lazy penalty it is neither: so much too few, so much too many.
    return 'in the order of ' if lazy else 'at least '
  return 'at most ' if lazy or not isinstance(schedule, Alternating) else ''


def _flops(setup: Setup) -> float:
  """Of one step: with one update each, and what further updates add."""
  # In parts, which are a loop, only one of them would be counted.
  trainer = setup.trainer.replace(accumulate=1)
  schedule = trainer.schedule

  def counted(f: Any, *args: Any) -> float:
    cost: Any = jax.jit(f).lower(*args).cost_analysis()
    return float(cost['flops'])

  if not isinstance(schedule, Alternating):
    return counted(trainer.step, setup.shapes, setup.real_shapes())
  once = dataclasses.replace(schedule, d_steps=1, g_steps=1)
  single = dataclasses.replace(setup, trainer=trainer.replace(schedule=once))
  total = counted(single.trainer.step, setup.shapes, single.real_shapes())
  real = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), single.real_shapes()
  )
  for player, count in (('d', schedule.d_steps), ('g', schedule.g_steps)):

    def gradient(state: Any, real: Any, player: str = player) -> Any:
      batch = Batch(*real) if isinstance(real, tuple) else Batch(real)
      updates = trainer.updates(state, batch.x.shape[0])
      of = updates.d_gradient if player == 'd' else updates.g_gradient
      return of(state, batch, state.key)

    if count > 1:
      total += (count - 1) * counted(gradient, setup.shapes, real)
  return total
