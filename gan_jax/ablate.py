"""Trains every cell of a grid over many seeds: `python -m gan_jax.ablate ...`.

    python -m gan_jax.ablate --workdir=runs/ring --flagfile=F --seeds=16
        --vary=objective=minimax,hinge --vary=lr_g+lr_d=1e-4,2e-4

The flags of `gan_jax.train` set what all runs share. The same command goes on
where it was stopped. Exit codes: 0 all runs have ended, 1 some crashed, 2 bad
flags or a workdir of another ablation, 75 saved after a signal (run the command
again).
"""

import os
from typing import Any

from absl import flags

from gan_jax.ablation import folder, grid
from gan_jax.ablation.plan import AblationOptions, make_plan
from gan_jax.config import app, schema

FLAGS = {
  'vary': (
    [],
    'FLAG=VALUE,VALUE,... is an axis of the grid; given again, every'
    ' combination is a cell. Values that hold commas have ; between them.'
    ' FLAG+FLAG=A,B gives both flags the same value, FLAG+FLAG=A/C,B/D each its'
    ' own. FLAG=loguniform(LOW,HIGH,COUNT) and uniform(...) draw values.',
  ),
  'seeds': (1, 'Runs of each cell, of seeds --seed, --seed + 1 and so on.'),
  'search_seed': (0, 'Seed of the values that ranges draw.'),
  'layout': (
    'auto',
    'How the members of a compiled program are computed: vmap (together), map'
    ' (in turn), or auto (by the networks and the device).',
  ),
  'primary': ('', 'Score that ranks the cells. Empty: the first of --metrics.'),
  'better': (
    '',
    'Whether lower or higher values of --primary are better. Empty: the'
    " metric's own direction.",
  ),
  'published': (
    '',
    'JSON file {source, rows} of published values to put beside the scores.'
    ' Empty: none.',
  ),
  'only': (
    '',
    'K/N: every N-th compiled program from the K-th on, the share of one task'
    ' of a cluster. Empty: all.',
  ),
  'dry_run': (False, 'Whether only to print the plan and what it costs.'),
  'collect': (False, 'Whether only to write the results of ended runs.'),
}
_ACTIONS = ('dry_run', 'collect')


def _options() -> AblationOptions:
  given: dict[str, Any] = {
    name: flags.FLAGS[name].value for name in FLAGS.keys() - _ACTIONS
  }
  base, vary = schema.from_flags(), tuple(given.pop('vary'))
  if not flags.FLAGS.network:
    vary = grid.add_networks(vary, base)
  return AblationOptions(base=base, vary=vary, **given)


def _use_all_cores() -> None:
  """A virtual device for each core; of no effect on other back ends."""
  flag = '--xla_force_host_platform_device_count'
  words = os.environ.get('XLA_FLAGS', '')
  if flag not in words:
    # Of this process, where the system can say so (Linux).
    own = getattr(os, 'sched_getaffinity', lambda _: range(os.cpu_count() or 1))
    cores = len(own(0))
    os.environ['XLA_FLAGS'] = f'{words} {flag}={cores}'


def main() -> int:
  """Runs, plans or collects, as the flags say."""
  plan = make_plan(_options())  # reports bad flags without JAX
  folder.check_folder(plan)
  if not flags.FLAGS.collect:
    _use_all_cores()
  from gan_jax.ablation import runner

  if flags.FLAGS.collect:
    return runner.collect(plan)
  from gan_jax.training.train import prepare_process

  prepare_process(plan.base)
  return runner.ablate(plan, dry_run=flags.FLAGS.dry_run)


if __name__ == '__main__':
  schema.define(FLAGS)
  schema.define_flags()
  app.run(main)
