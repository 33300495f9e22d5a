"""The command that scores: what it prints, and what it refuses at once."""

import subprocess
import sys

import pytest
from helpers import commands
from helpers.saved_run import rows, write_run


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  return write_run(tmp_path_factory.mktemp('runs') / 'ring', (12,))


def test_command(run):
  words = ['--metrics=modes', '--samples=50', '--eval_seeds=2', '--devices=1']
  done = commands.run('evaluate', f'--workdir={run}', *words)
  assert done.returncode == 0, done.stderr
  assert 'step 12, averaged G: mode_jsd ' in done.stdout
  assert '± over 2 evaluation seeds' in done.stdout
  assert [row['step'] for row in rows(run)] == [12]


REFUSED = {
  'nothing': ([], '--workdir'),
  'two ways': (['--workdir={run}', '--all', '--step=4'], 'use one of them'),
  'a run of images': (
    ['--images=x.npz', '--step=0'],
    '--step=0: has no effect on --images, only on a run (--workdir)',
  ),
  'live images': (['--images=x.npz', '--noema'], '--ema=false: has no effect'),
  'out of a run': (
    ['--workdir={run}', '--out=m.jsonl'],
    '--out=m.jsonl: has no effect on a run (--workdir), only on --images',
  ),
  'metric': (
    ['--workdir={run}', '--metrics=modes,fidd'],
    '--metrics=modes,fidd: fidd: did you mean fid',
  ),
  'metric twice': (
    ['--workdir={run}', '--metrics=modes,modes'],
    '--metrics=modes,modes: modes is there twice',
  ),
  'features': (
    ['--workdir={run}', '--features=inceptoin-64'],
    '--features=inceptoin-64: inceptoin: did you mean inception',
  ),
  'no run': (['--workdir={run}/none'], 'no run there'),
  'no checkpoint': (['--workdir={run}', '--step=5'], '--step=5: no such'),
}


@pytest.mark.parametrize('case', sorted(REFUSED))
def test_command_refuses_what_is_of_no_use(case, run):
  words, message = REFUSED[case]
  done = commands.run('evaluate', *(word.format(run=run) for word in words))
  assert done.returncode == 2
  assert message in done.stderr, done.stderr


def test_a_misspelt_metric_is_answered_before_jax_is_imported(run):
  code = (
    'import runpy, sys\n'
    'try:\n'
    "  runpy.run_module('gan_jax.evaluate', run_name='__main__')\n"
    'finally:\n'
    "  print('jax' in sys.modules)"
  )
  done = subprocess.run(
    [sys.executable, '-c', code, f'--workdir={run}', '--metrics=fidd'],
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert done.returncode == 2, done.stderr
  assert 'did you mean fid' in done.stderr and done.stdout == 'False\n'
