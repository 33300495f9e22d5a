"""Ablates: `python -m gan_jax.ablate --workdir=DIR --vary=FLAG=A,B --seeds=N`.

    python -m gan_jax.ablate --workdir=runs/ring --flagfile=F --seeds=16 \
      --vary=objective=minimax,hinge --vary=lr_g+lr_d=1e-4,2e-4

trains every combination of the values over the same seeds, those that differ in
hyper-parameters and seeds only as one compiled program, scores all runs and
ranks them with confidence intervals. Every flag of `gan_jax.train` sets what
all runs share. The same command continues what was stopped. Exit codes: 0 all
runs have ended, 1 some crashed, 2 bad flags or a workdir of another ablation,
75 saved after a signal.
"""

import os

from absl import flags

from gan_jax.ablation import folder, grid
from gan_jax.ablation.plan import AblationOptions, make_plan
from gan_jax.config import app, schema

flags.DEFINE_multi_string(
  'vary',
  [],
  'what is varied: FLAG=VALUE,VALUE,... Given again, every combination of both'
  ' is trained. Values that hold commas are separated by semicolons;'
  ' FLAG+FLAG=A,B sets both flags to the same, FLAG+FLAG=A/C,B/D each to its'
  ' own; FLAG=loguniform(LOW,HIGH,COUNT) and uniform(...) draw COUNT values',
)
flags.DEFINE_integer('seeds', 1, 'runs of each combination, from --seed on')
flags.DEFINE_integer('search_seed', 0, 'seed from which ranges are drawn')
flags.DEFINE_string(
  'layout',
  'auto',
  'how a device computes the runs of one program: vmap (all at once), map (one'
  ' after another), or auto (what measured fastest for such networks)',
)
flags.DEFINE_string(
  'primary', '', 'the score that ranks; empty: the first of --metrics'
)
flags.DEFINE_string(
  'better',
  '',
  'whether lower or higher values of --primary are better; empty: the'
  " metric's own direction",
)
flags.DEFINE_string(
  'published',
  '',
  'JSON file of published values, {"source": ..., "rows": {label: [mean,'
  ' standard deviation or null]}}, to be shown beside ours; empty: none',
)
flags.DEFINE_string(
  'only',
  '',
  'K/N: run every N-th program from the K-th on, as one of N tasks of a'
  ' cluster; empty: all',
)
flags.DEFINE_boolean(
  'dry_run', False, 'print the plan and its estimated time, train nothing'
)
flags.DEFINE_boolean(
  'collect',
  False,
  'make results.csv and the report of the runs that have ended, train nothing',
)


def _options() -> AblationOptions:
  given = flags.FLAGS
  base, vary = schema.from_flags(), tuple(given.vary)
  if not given.network:
    vary = grid.add_networks(vary, base)
  return AblationOptions(
    base,
    vary,
    seeds=given.seeds,
    search_seed=given.search_seed,
    layout=given.layout,
    primary=given.primary,
    better=given.better,
    published=given.published,
    only=given.only,
  )


def _use_all_cores() -> None:
  """Makes a virtual device of each core; of no effect on other back ends."""
  name = 'xla_force_host_platform_device_count'
  words = os.environ.get('XLA_FLAGS', '')
  if name not in words:
    cores = len(os.sched_getaffinity(0))
    os.environ['XLA_FLAGS'] = f'{words} --{name}={cores}'


def main() -> int:
  """Runs, plans or collects, as the flags say."""
  plan = make_plan(_options())  # an error is reported before JAX is imported
  folder.check_folder(plan)
  if not flags.FLAGS.collect:
    _use_all_cores()
  from gan_jax.ablation import runner

  if flags.FLAGS.collect:
    return runner.collect(plan)
  return runner.ablate(plan, dry_run=flags.FLAGS.dry_run)


if __name__ == '__main__':
  schema.define_flags()
  flags.adopt_module_key_flags(schema)
  app.run(main)
