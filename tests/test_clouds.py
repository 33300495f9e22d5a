"""Cloud TPU VMs, SkyPilot and the image: what is started, in their words."""

import importlib.util
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
LAUNCH = ROOT / 'launch'
sys.path.append(str(LAUNCH))  # as it is for a script in it
spec = importlib.util.spec_from_file_location('tpu_vm', LAUNCH / 'tpu_vm.py')
tpu_vm = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tpu_vm)

SLICE = ['--name=n', '--zone=z', '--project=p']
KIND = ['--type=v5litepod-16', '--version=v2-alpha-tpuv5-lite', '--spot']
RUN = ['--image=i', '--workdir=/mnt/w/a b', '--mount=/mnt/w', '--job=7']
PLACE = ['--zone=z', '--project=p']


def shown(capsys, *words):
  do, *words = words
  assert tpu_vm.main([f'--do={do}', *SLICE, '--dry_run', *words]) == 0
  return [shlex.split(line) for line in capsys.readouterr().out.splitlines()]


def test_a_slice_is_queued_for_and_taken_anew(capsys):
  create = ['gcloud', 'compute', 'tpus', 'queued-resources', 'create', 'n']
  create += [*PLACE, '--node-id=n', '--accelerator-type=v5litepod-16']
  create += ['--runtime-version=v2-alpha-tpuv5-lite', '--spot']
  assert shown(capsys, 'create', *KIND) == [create]
  delete = ['gcloud', 'compute', 'tpus', 'queued-resources', 'delete', 'n']
  delete += [*PLACE, '--force', '--quiet']
  assert shown(capsys, 'resume', *KIND) == [delete, create]
  assert shown(capsys, 'delete') == [delete]


def test_a_run_starts_on_all_workers_and_is_judged_on_the_first(
  capsys, tmp_path
):
  """The shell of a worker, with what stands for its machine in it."""
  ((*command, worker, shell),) = shown(capsys, 'start', *RUN, '--', '--steps=9')
  assert command == ['gcloud', 'compute', 'tpus', 'tpu-vm', 'ssh', 'n', *PLACE]
  assert worker == '--worker=all'
  for name, text in {
    'curl': 'echo 3',
    'sudo': 'test "$1" = docker && exit; shift; echo "$JOB_INDEX"; exec "$@"',
    'docker': 'printf "<%s>" "$@"',
  }.items():
    (tmp_path / name).write_text(f'#!/bin/sh\n{text}\n')
    (tmp_path / name).chmod(0o755)
  done = subprocess.run(
    ['sh', '-c', shell.removeprefix('--command=')],
    env={'PATH': f'{tmp_path}:{os.environ["PATH"]}'},
    capture_output=True,
    text=True,
  )
  index, _, said = done.stdout.partition('\n')
  assert index == '3' and '<--env=JOB_INDEX>' in said, done.stderr
  assert '<--restart=on-failure:3><--stop-timeout=90>' in said
  assert '<--volume=/mnt/w:/mnt/w>' in said
  assert said.endswith(
    '<i><python></opt/gan_jax/launch/restarts.py><run><--zero><--job=7>'
    '<--stalls=3><--><python><-m><gan_jax.train><--workdir=/mnt/w/a b>'
    '<--multihost=true><--save_deadline=60><--steps=9>'
  )


def test_an_ablation_is_shared_out_to_all_workers(capsys):
  words = ('--module=gan_jax.ablate', '--', '--seeds=4')
  ((*_, shell),) = shown(capsys, 'start', *RUN, *words)
  assert ' -m gan_jax.ablate ' in shell and '--multihost=true' in shell


def test_its_log_and_its_end(capsys):
  ((*_, worker, shell),) = shown(capsys, 'watch', '--worker=2')
  assert worker == '--worker=2' and '--follow' in shell
  ((*_, worker, shell),) = shown(capsys, 'stop')
  assert (worker, shell) == (
    '--worker=all',
    '--command=sudo docker stop gan_jax',
  )


@pytest.mark.parametrize(
  ('words', 'said'),
  [
    (['--do=create'], '--type'),
    (['--do=start', '--image=i', '--workdir=/w'], 'none of --mount'),
    (['--do=start', '--workdir=/w', '--mount=/w'], '--image'),
  ],
)
def test_what_is_missing_is_named(words, said, capsys):
  with pytest.raises(SystemExit):
    tpu_vm.parse([*words, *SLICE])
  assert said in capsys.readouterr().err


def test_skypilot_joins_the_nodes_and_judges_on_the_first(tmp_path):
  yaml = pytest.importorskip('yaml')
  task = yaml.safe_load((LAUNCH / 'skypilot.yaml').read_text())
  assert task['resources']['job_recovery']['recover_on_exit_codes'] == [75]
  show = 'env | grep -E "^(JAX|SLURM|JOB)_" | sort; printf "<%s>" "$@"'
  (tmp_path / 'python').write_text(f'#!/bin/sh\n{show}\n')
  (tmp_path / 'python').chmod(0o755)
  environ = {
    **{k: str(v) for k, v in task['envs'].items()},
    'PATH': f'{tmp_path}:{os.environ["PATH"]}',
    'FLAGS': '--steps=9 --seed=1',
    'SKYPILOT_NUM_NODES': '2',
    'SKYPILOT_NODE_IPS': '10.0.0.1\n10.0.0.2',
    'SKYPILOT_NODE_RANK': '1',
    'SKYPILOT_NUM_GPUS_PER_NODE': '2',
    'SKYPILOT_TASK_ID': 'id',
  }
  words = ['bash', '-e', '-c', task['run']]
  said = subprocess.run(words, env=environ, capture_output=True, text=True)
  lines = said.stdout.splitlines()
  assert 'JAX_COORDINATOR_ADDRESS=10.0.0.1:8476' in lines, said.stderr
  assert 'JAX_LOCAL_DEVICE_IDS=0,1' in lines
  assert {'SLURM_NTASKS=2', 'SLURM_PROCID=1', 'JOB_INDEX=1'} <= {*lines}
  assert lines[-1].startswith('<launch/restarts.py><run><--job=id><-->')
  assert lines[-1].endswith('<--multihost=true><--steps=9><--seed=1>')


def instructions(path):
  """Of a Dockerfile: (instruction, words), its lines joined."""
  text = re.sub(r'\\\n', ' ', path.read_text(encoding='utf-8'))
  lines = [line for line in text.splitlines() if line and line[0] != '#']
  return [(line.split()[0], line.split()[1:]) for line in lines]


def test_the_image_is_made_of_what_there_is():
  """And of what is not left out of the context."""
  parsed = instructions(LAUNCH / 'Dockerfile')
  known = {'ARG', 'FROM', 'ENV', 'WORKDIR', 'COPY', 'RUN', 'USER'}
  assert {name for name, _ in parsed} == known
  stages = [words[2] for name, words in parsed if name == 'FROM']
  assert stages == ['base', 'cpu', 'gpu', 'tpu']
  sources = [s for name, words in parsed if name == 'COPY' for s in words[:-1]]
  ignored = (ROOT / '.dockerignore').read_text().splitlines()
  taken = [line[1:] for line in ignored if line[0] == '!']
  # Buildah looks into no folder that is left out itself.
  assert not any('/' in name for name in taken)
  for source in sources:
    assert (ROOT / source).exists() and source in taken
  extras = (ROOT / 'setup.py').read_text(encoding='utf-8')
  asked = re.findall(r"'\.\[(.*)\]'", (LAUNCH / 'Dockerfile').read_text())
  assert len(asked) == 3
  for extra in ','.join(asked).split(','):
    assert f"'{extra}': [" in extras
  assert ('WORKDIR', ['/opt/gan_jax']) in parsed  # where launch/ is sought


@pytest.mark.skipif(not shutil.which('hadolint'), reason='no hadolint')
def test_the_linter_of_dockerfiles_has_nothing_to_say():
  words = ['hadolint', LAUNCH / 'Dockerfile']
  done = subprocess.run(words, capture_output=True, text=True)
  assert done.returncode == 0, done.stdout
