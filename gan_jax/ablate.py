"""Ablates: `python -m gan_jax.ablate --workdir=DIR --vary=FLAG=A,B --seeds=N`.

    python -m gan_jax.ablate --workdir=runs/ring --flagfile=F --seeds=16 \
      --vary=objective=minimax,hinge --vary=lr_g+lr_d=1e-4,2e-4

Every flag of `gan_jax.train` sets what all runs share. The same command goes on
where it was stopped. Exit codes: 0 all runs have ended, 1 some crashed, 2 bad
flags or refused workdir, 75 saved after a signal.
"""

import os

from absl import flags

from gan_jax.ablation import folder, grid
from gan_jax.ablation import plan as ablation_plan
from gan_jax.ablation.plan import Request
from gan_jax.config import app as doors
from gan_jax.config import schema
from gan_jax.config.schema import ConfigError

flags.DEFINE_multi_string(
  'vary',
  [],
  'FLAG=VALUE,VALUE,...: what is varied; given again, every combination. With ;'
  ' between values that hold commas; FLAG+FLAG=A,B sets both, FLAG+FLAG=A/C,B/D'
  ' each to its own; FLAG=loguniform(LOW,HIGH,COUNT) or uniform(...) draws',
)
flags.DEFINE_integer('seeds', 1, 'runs of each cell, from --seed on')
flags.DEFINE_integer('search_seed', 0, 'of what ranges draw')
flags.DEFINE_string(
  'layout', 'auto', 'members of a program: auto, vmap (together), map (in turn)'
)
flags.DEFINE_string('primary', '', 'the score that ranks; empty: the first one')
flags.DEFINE_string('better', '', 'of it, lower or higher; empty: as is known')
flags.DEFINE_string(
  'published', '', 'JSON file of published values: {source, rows}'
)
flags.DEFINE_string(
  'only', '', "K/N: every N-th program from the K-th on, a cluster task's part"
)
flags.DEFINE_boolean('dry_run', False, 'print the plan and the time it takes')
flags.DEFINE_boolean(
  'collect', False, 'make results.csv and report of what has ended, run nothing'
)


def _request() -> Request:
  given = flags.FLAGS
  if given.layout not in ('auto', 'vmap', 'map'):
    raise ConfigError(f'--layout={given.layout}: use auto, vmap or map')
  base, vary = schema.from_flags(), tuple(given.vary)
  if not given.network:
    vary = grid.suited(vary, base)
  return Request(
    base=base,
    vary=vary,
    seeds=given.seeds,
    search_seed=given.search_seed,
    layout=given.layout,
    primary=given.primary,
    better=given.better,
    published=given.published,
    only=given.only,
  )


def _use_all_cores() -> None:
  """A virtual device for each core; of no effect on other back ends."""
  name = 'xla_force_host_platform_device_count'
  words = os.environ.get('XLA_FLAGS', '')
  if name not in words:
    cores = len(os.sched_getaffinity(0))
    os.environ['XLA_FLAGS'] = f'{words} --{name}={cores}'


def main() -> int:
  """Runs, plans or collects, as the flags say."""
  request = _request()
  plan = ablation_plan.make_plan(request)  # what is wrong is told at once
  if flags.FLAGS.collect:
    folder.check(plan)
    from gan_jax.ablation import runner

    return runner.collected(plan)
  _use_all_cores()
  from gan_jax.ablation import runner  # JAX is wanted only now

  return runner.ablate(request, dry_run=flags.FLAGS.dry_run)


if __name__ == '__main__':
  schema.define_flags()
  flags.adopt_module_key_flags(schema)
  doors.run(main)
