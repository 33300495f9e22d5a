"""One ablation over two processes: the results of one with two devices."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers import ablations, compiling

from gan_jax.ablation import plan
from gan_jax.runtime.errors import ArgumentError

ROOT = pathlib.Path(__file__).parents[2]
WORDS = [
  '--dataset=ring',
  '--network=mlp',
  '--width=4',
  '--batch_size=16',
  '--steps=600',
  '--log_every=100',
  '--checkpoint_every=100',
  '--eval_every=300',
  '--eval_samples=64',
  '--metrics=modes',
  '--vary=lr_g=1e-3,1e-2',
  '--seeds=3',
  '--noreport',
  '--compilation_cache=off',
]


def arrays(workdir):
  with np.load(workdir / 'programs' / '000' / 'stats.npz') as rows:
    return {name: rows[name] for name in rows}


def command(workdir, processes):
  if processes == 1:
    return [sys.executable, '-m', 'gan_jax.ablate', f'--workdir={workdir}']
  launch = [sys.executable, str(ROOT / 'launch' / 'local.py')]
  launch += ['--module=gan_jax.ablate', '--platform=cpu', '--processes=2']
  return [*launch, f'--workdir={workdir}', '--']


@pytest.mark.multiprocess
def test_two_processes_end_where_two_devices_do_after_a_signal_too(tmp_path):
  one, two = tmp_path / 'one', tmp_path / 'two'
  env = dict(os.environ, XLA_FLAGS=compiling.of_a_process())
  subprocess.run(
    ['timeout', '200', *command(one, 1), *WORDS],
    env=env | {'JAX_NUM_CPU_DEVICES': '2'},
    check=True,
    cwd=ROOT,
    capture_output=True,
  )
  both = ['timeout', '200', *command(two, 2), *WORDS]
  process = subprocess.Popen(both, env=env, cwd=ROOT)
  checkpoints = two / 'programs' / '000' / 'checkpoints'
  while process.poll() is None and not [*checkpoints.glob('0*')]:
    time.sleep(0.1)
  process.send_signal(signal.SIGTERM)
  assert process.wait() == 75
  subprocess.run(both, env=env, cwd=ROOT, check=True)
  assert ablations.rows(two) == ablations.rows(one)
  own, wanted = arrays(two), arrays(one)
  assert own.keys() == wanted.keys() and own['step'][-1] == 600
  for name, values in wanted.items():
    np.testing.assert_array_equal(own[name], values, err_msg=name)


def test_processes_that_share_members_take_no_share_of_the_programs(tmp_path):
  with pytest.raises(ArgumentError, match='`only=1/2`: .*`multihost=true`'):
    ablations.plan(tmp_path, only='1/2', multihost=True)
  assert plan.make_plan(ablations.options(tmp_path, multihost=True)).runs == 4
