"""The command that scores: what it prints, and what it refuses at once."""

import os
import subprocess
import sys

import pytest
from helpers.scored_run import folders, rows, run_fixture, trained_fixture  # noqa: F401


def gan(*words, code=0):
  done = subprocess.run(
    [sys.executable, '-m', 'gan_jax.evaluate', *words],
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.returncode == code, done.stderr
  assert 'Traceback' not in done.stderr
  return done.stdout, done.stderr


@pytest.mark.slow
def test_command(run):
  words = [f'--workdir={run}', '--metrics=modes', '--samples=50']
  out, _ = gan(*words, '--eval_seeds=2', '--devices=1')
  assert 'step 12, averaged G: modes ' in out
  assert '± over 2 evaluation seeds' in out
  assert [row['step'] for row in rows(run)] == [12]


REFUSED = {
  'nothing': ([], '--workdir'),
  'two ways': (['--workdir={run}', '--all', '--step=4'], 'use one of them'),
  'a run of images': (
    ['--images=x.npz', '--step=0'],
    '--step=0: has no effect on --images, only on a run (--workdir)',
  ),
  'live images': (['--images=x.npz', '--noema'], '--ema=False: has no effect'),
  'out of a run': (
    ['--workdir={run}', '--out=m.jsonl'],
    '--out=m.jsonl: has no effect on a run (--workdir), only on --images',
  ),
  'metric': (
    ['--workdir={run}', '--metrics=modes,fidd'],
    '--metrics=modes,fidd: fidd: did you mean fid',
  ),
  'features': (
    ['--workdir={run}', '--features=inceptoin-64'],
    '--features=inceptoin-64: inceptoin: did you mean inception',
  ),
  'no run': (['--workdir={run}/none'], 'no run there'),
}


@pytest.mark.parametrize('case', sorted(REFUSED))
def test_command_refuses_before_jax_is_imported(case, run):
  words, said = REFUSED[case]
  code = (
    'import sys\n'
    'from absl import flags\n'
    'from gan_jax import config, evaluate\n'
    'flags.FLAGS(sys.argv)\n'
    'try:\n'
    '  evaluate.main()\n'
    'except config.ConfigError as error:\n'
    '  print(error.exit_code, error)\n'
    "print('jax' in sys.modules)"
  )
  words = [word.format(run=run) for word in words]
  done = subprocess.run(
    [sys.executable, '-c', code, *words],
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith('2 ') and said in done.stdout, done.stdout
  assert done.stdout.endswith('\nFalse\n')
