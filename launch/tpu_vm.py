"""A run on Cloud TPU VMs, through gcloud's queued resources.

    python launch/tpu_vm.py --do=create --name=N --zone=Z --type=v5litepod-16
      --version=v2-alpha-tpuv5-lite --spot
    python launch/tpu_vm.py --do=start --name=N --zone=Z --image=IMAGE
      --flagfile=F --workdir=/mnt/data/runs/a
    python launch/tpu_vm.py --do=watch --name=N --zone=Z   # stop, delete, ...

`create` queues for a slice; `start` runs the image on all of its workers, which
join by themselves; `watch` follows the log of the first. `stop` sends SIGTERM
and waits for the saving; `start` again goes on from there. A slice that was
taken back is gone: `resume`, with the options of `create`, deletes it and
queues for another, on which `start` goes on. `--dry_run` prints the commands of
gcloud. The workdir lies where all workers see it: Filestore, a mounted disk,
or a URL (gs://bucket/runs/a).

On each worker launch/restarts.py judges what is restarted, as everywhere.
"""

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence

import restarts

ACTIONS = ('create', 'start', 'watch', 'stop', 'resume', 'delete', 'status')
# A saving must have ended by then; 30 s of a spot VM's warning are short.
MARGIN_SECONDS = 30
# Of a worker, told by its machine.
_NUMBER = (
  'curl -s -H Metadata-Flavor:Google http://metadata.google.internal/'
  'computeMetadata/v1/instance/attributes/agent-worker-number'
)


def _gcloud(options: argparse.Namespace, *words: str) -> list[str]:
  command = ['gcloud', 'compute', 'tpus', *words, f'--zone={options.zone}']
  return [*command, *([f'--project={options.project}'] * bool(options.project))]


def _ssh(options: argparse.Namespace, shell: str, worker: str) -> list[str]:
  words = ('tpu-vm', 'ssh', options.name)
  command = _gcloud(options, *words)
  return [*command, f'--worker={worker}', f'--command={shell}']


def create(options: argparse.Namespace) -> list[str]:
  """Queues for a slice."""
  words = _gcloud(options, 'queued-resources', 'create', options.name)
  words += [f'--node-id={options.name}', f'--accelerator-type={options.type}']
  words += [f'--runtime-version={options.version}']
  return [*words, *['--spot'] * options.spot, *options.gcloud]


def delete(options: argparse.Namespace) -> list[str]:
  """Gives the slice back, and its place in the queue."""
  words = _gcloud(options, 'queued-resources', 'delete', options.name)
  return [*words, '--force', '--quiet']


def start(options: argparse.Namespace) -> list[str]:
  """Runs the image on all workers, in the background.

  A crash is counted by docker, for which 0 is what is not to be restarted.
  """
  words = ['python', '-m', options.module]
  words += [f'--flagfile={options.flagfile}'] if options.flagfile else []
  words += [f'--workdir={options.workdir}', '--multihost=true']
  words += [f'--save_deadline={options.save_deadline}', *options.extra]
  judge = ['python', f'{options.launch}/restarts.py', 'run']
  judge += ['--zero', f'--job={options.job}', f'--stalls={options.stalls}']
  judge += ['--', *words]
  container = ['docker', 'run', '--detach', '--privileged', '--net=host']
  container += ['--name=gan_jax', f'--restart=on-failure:{options.crashes}']
  container += [f'--stop-timeout={options.save_deadline + MARGIN_SECONDS}']
  container += [f'--volume={path}:{path}' for path in options.mount]
  # Only the first worker's history counts.
  container += ['--env=JOB_INDEX', options.image, *judge]
  shell = (
    'sudo docker rm -f gan_jax >/dev/null 2>&1;'
    f' JOB_INDEX="$({_NUMBER})" sudo --preserve-env=JOB_INDEX'
    f' {shlex.join(container)}'
  )
  return _ssh(options, shell, 'all')


def watch(options: argparse.Namespace) -> list[str]:
  """Follows the log of one worker."""
  shell = 'sudo docker logs --tail=100 --follow gan_jax'
  return _ssh(options, shell, options.worker)


def stop(options: argparse.Namespace) -> list[str]:
  """SIGTERM to all workers, which save; docker waits for them."""
  return _ssh(options, 'sudo docker stop gan_jax', 'all')


def status(options: argparse.Namespace) -> list[str]:
  """Whether the slice is there."""
  return _gcloud(options, 'queued-resources', 'describe', options.name)


def commands(options: argparse.Namespace) -> list[list[str]]:
  """What an action does, one after the other."""
  if options.action == 'resume':
    return [delete(options), create(options)]
  action = {f.__name__: f for f in (create, delete, start, watch, stop, status)}
  return [action[options.action](options)]


def parse(words: Sequence[str]) -> argparse.Namespace:
  """The options, and in `extra` what comes after `--`."""
  words, extra = restarts.split_words(words)
  parser = restarts.make_parser(__doc__)
  add = parser.add_argument
  add('--do', required=True, choices=ACTIONS, dest='action')
  add('--name', required=True, help='of the queued resource and its slice')
  add('--zone', required=True, help='as us-west4-a')
  add('--project', default='', help="default: gcloud's")
  add('--type', default='', help='of the slice, as v5litepod-16')
  add('--version', default='', help='of the runtime, as v2-alpha-tpuv5-lite')
  add('--spot', action='store_true', help='cheaper, and may be taken back')
  add('--gcloud', action='append', default=[], help='further option of create')
  add('--image', default='', help='with gan_jax and launch/ in it, for TPUs')
  add('--module', default='gan_jax.train', help='what python -m runs')
  add('--flagfile', default='', help='flags of the run, in the container')
  add(
    '--workdir',
    default='',
    help='of the run, for all workers',
  )
  add('--mount', action='append', default=[], help='folder of the VM inside it')
  add('--worker', default='0', help='whose log is followed')
  add('--save_deadline', type=int, default=60, help='seconds a save may take')
  add('--crashes', type=int, default=restarts.CRASHES, help='tolerated')
  add('--stalls', type=int, default=restarts.STALLS, help='restarts likewise')
  add('--launch', default='/opt/gan_jax/launch', help='launch/ in the image')
  add('--job', default='', help='default: the name and the time')
  add('--dry_run', action='store_true', help='print the commands, run none')
  options = parser.parse_args(words)
  options.extra = extra
  options.job = options.job or f'{options.name}-{int(time.time())}'
  wanted = {'create': ('type', 'version'), 'start': ('image', 'workdir')}
  wanted['resume'] = wanted['create']
  for name in wanted.get(options.action, ()):
    if not getattr(options, name):
      parser.error(f'--{name}: is needed to {options.action}')
  lasts = restarts.is_url(options.workdir)
  if (
    options.action == 'start'
    and not lasts
    and not any(
      f'{options.workdir}/'.startswith(f'{path.rstrip("/")}/')
      for path in options.mount
    )
  ):
    parser.error(f'--workdir={options.workdir}: lies in none of --mount')
  if min(options.crashes, options.stalls, options.save_deadline) < 0:
    parser.error('--crashes, --stalls and --save_deadline: 0 or more')
  return options


def main(words: Sequence[str]) -> int:
  """Runs or shows the commands."""
  options = parse(words)
  for command in commands(options):
    if options.dry_run:
      print(shlex.join(command))
      continue
    try:
      code = subprocess.run(command, env=os.environ, check=False).returncode
    except FileNotFoundError:
      print('error: gcloud is not here; see --dry_run', file=sys.stderr)
      return 1
    if code:
      return code
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
