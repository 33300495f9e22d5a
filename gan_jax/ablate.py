"""Trains every cell of a grid over many seeds: `python -m gan_jax.ablate ...`.

    python -m gan_jax.ablate --workdir=runs/ring --flagfile=F --seeds=16
        --vary=objective=minimax,hinge --vary=lr_g+lr_d=1e-4,2e-4

The flags of `gan_jax.train` set what all runs share. The same command goes on
where it was stopped. Exit codes: 0 all runs have ended, 1 some crashed, 2 bad
flags or a workdir of another ablation, 75 saved after a signal (run the command
again); of --compile_for, 0 if it fits, 1 if it does not.
"""

from typing import Any

from absl import flags

from gan_jax.ablation import folder, grid
from gan_jax.ablation import plan as plan_lib
from gan_jax.config import app, schema
from gan_jax.config.parsing import INT_MAX
from gan_jax.config.schema import Flag

FLAGS: dict[str, Flag] = {
  'vary': Flag(
    [],
    'FLAG=VALUE,VALUE,... is an axis of the grid; given again, every'
    ' combination is a cell. Values that hold commas have ; between them.'
    ' FLAG+FLAG=A,B gives both flags the same value, FLAG+FLAG=A/C,B/D each its'
    ' own. FLAG=loguniform(LOW,HIGH,COUNT) and uniform(...) draw values.',
  ),
  'seeds': Flag(
    1, 'Runs of each cell, of seeds --seed, --seed + 1 and so on.', 1, 10**5
  ),
  'search_seed': Flag(0, 'Seed of the values that ranges draw.', 0, INT_MAX),
  'layout': Flag(
    'auto',
    'How the members of a compiled program are computed: vmap (together), map'
    ' (in turn), or auto (by the networks and the device).',
  ),
  'split': Flag(
    0,
    'Into how many the runs of each compiled program are split. 0: as the'
    ' workdir has it; at its beginning as many as it takes for each process of'
    ' a --multihost job, or each task of --only=K/N, to have one.',
    0,
    INT_MAX,
  ),
  'primary': Flag(
    '', 'Score that ranks the cells. Empty: the first of --metrics.'
  ),
  'better': Flag(
    '',
    'Whether lower or higher values of --primary are better. Empty: the'
    " metric's own direction.",
  ),
  'published': Flag(
    '',
    'JSON file {source, rows} of published values to put beside the scores.'
    ' Empty: none.',
    place=True,
  ),
  'only': Flag(
    '',
    'K/N: every N-th compiled program from the K-th on, the share of one task'
    ' of a cluster, which need not know of the others. Empty: all.',
  ),
  'dry_run': Flag(False, 'Whether only to print the plan and what it costs.'),
  'collect': Flag(False, 'Whether only to write the results of ended runs.'),
  'compile_for': Flag(
    '',
    'Compile the largest program for such devices, which need not be here, say'
    ' what it needs of them, and train nothing: h100, h200, a100 or l4, h100:4'
    ' for four, h100:2x4 for two hosts of four; v5e, v5e:2x4 for a TPU slice.',
  ),
  'out': Flag(
    '',
    'File of what --compile_for finds, as JSON. Empty: in the workdir.',
    place=True,
  ),
}
_ACTIONS = ('dry_run', 'collect', 'compile_for', 'out')


def _options() -> plan_lib.AblationOptions:
  given: dict[str, Any] = {
    name: flags.FLAGS[name].value for name in FLAGS.keys() - _ACTIONS
  }
  base, vary = (
    schema.from_flags(plan_lib.with_metrics),
    tuple(given.pop('vary')),
  )
  if not flags.FLAGS.network:
    vary = grid.add_networks(vary, base)
  return plan_lib.AblationOptions(base=base, vary=vary, **given)


def main() -> int:
  """Runs, plans or collects, as the flags say."""
  f = flags.FLAGS
  plan_lib.check_actions(f.collect, f.dry_run, f.only, f.multihost)
  with grid.pointing_to_vary():
    plan = plan_lib.make_plan(_options())  # reports bad flags without JAX
  folder.check_folder(plan)
  if f.compile_for:
    from gan_jax.ablation import compile_for

    return compile_for.compile_plan(plan, f.compile_for, f.out)
  app.warn_idle('nothing is compiled for', 'out')
  if not flags.FLAGS.collect:
    app.use_all_cores()
  from gan_jax.ablation import runner

  if flags.FLAGS.collect:
    return runner.collect(plan)
  from gan_jax.training.train import join_job, prepare_back_end

  join_job(plan.base)
  return runner.ablate(plan, dry_run=f.dry_run, prepare=prepare_back_end)


if __name__ == '__main__':
  schema.define(FLAGS)
  schema.define_flags()
  app.run(main)
