"""Writes a run or an ablation as Kubernetes manifests, and creates them.

    python launch/kubernetes.py --name=digits --image=IMAGE --volume=CLAIM:/data
      --flagfile=F --workdir=/data/runs/a --nodes=2 --gpus_per_node=8

A run is a JobSet: one pod a node, whose one process takes all GPUs of the node,
or one pod a host of a TPU slice (`--tpu=tpu-v5-lite-podslice:4x4`). With
`--ablate=N` it is an Indexed Job of N pods that share the runs of an
ablation; `--collect` is the job that makes its results. `--dry_run` prints the
manifest, which is otherwise handed to `kubectl create`. Everything after `--`
goes to the command as it stands. F lies in the image or on a volume.

What is restarted is said by launch/restarts.py, in Kubernetes' words: a pod
that has saved (75) or was evicted is made anew, uncounted; a crash restarts the
whole run (or the one index of an ablation) `--crashes` times; bad flags (2), a
divergence (3) and restarts without progress (4) end it.
"""

import argparse
import json
import math
import posixpath
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import restarts

Manifest = dict[str, Any]
PORT = 8476  # of the coordinator
# From the end of the saving to the kill.
MARGIN_SECONDS = 30


def to_yaml(value: Any, indent: str = '') -> str:
  """A manifest as YAML, whose strings are those of JSON.

  >>> print(to_yaml({'a': [{'b': 'x', 'c': 1}], 'd': {}}))
  a:
  - b: "x"
    c: 1
  d: {}
  """
  lines = []
  if isinstance(value, dict) and value:
    for key, each in value.items():
      name = key if re.fullmatch(r'[A-Za-z]\w*', key) else json.dumps(key)
      if isinstance(each, (dict, list)) and each:
        deeper = indent if isinstance(each, list) else f'{indent}  '
        lines += [f'{indent}{name}:', to_yaml(each, deeper)]
      else:
        lines.append(f'{indent}{name}: {json.dumps(each)}')
    return '\n'.join(lines)
  if isinstance(value, list) and value:
    for each in value:
      text = to_yaml(each, f'{indent}  ')
      lines.append(f'{indent}- {text.removeprefix(f"{indent}  ")}')
    return '\n'.join(lines)
  return f'{indent}{json.dumps(value)}'


def script(options: argparse.Namespace) -> str:
  """What the shell of a container does."""
  is_ablation = options.ablate or options.collect
  module = 'gan_jax.ablate' if is_ablation else options.module
  words = [*shlex.split(options.python), '-m', module]
  words += [f'--flagfile={options.flagfile}'] if options.flagfile else []
  words += [f'--workdir={options.workdir}']
  words += [f'--save_deadline={options.save_deadline}', *options.extra]
  scheme = options.workdir.partition('://')[0]
  keeps = not restarts.is_url(options.workdir) or scheme in ('gs', 's3')
  if keeps and not restarts.flag('compilation_cache', options.extra):
    cache = posixpath.join(posixpath.dirname(options.workdir), 'xla-cache')
    words += [f'--compilation_cache={cache}']
  if options.collect:
    return f'exec {shlex.join([*words, "--collect"])}'
  words += ['--multihost=true'] if _processes(options) > 1 else []
  judge = [*shlex.split(options.python), f'{options.launch}/restarts.py', 'run']
  judge += [f'--job={options.job}', f'--stalls={options.stalls}', '--']
  command = shlex.join([*judge, *words])
  if options.ablate:
    command += f' --only=$((JOB_COMPLETION_INDEX + 1))/{options.ablate}'
  return f'exec {command}'


def _processes(options: argparse.Namespace) -> int:
  if options.tpu:
    return options.slices * _hosts(options)
  return 1 if options.ablate else int(options.nodes)


def _hosts(options: argparse.Namespace) -> int:
  """Of a TPU slice."""
  topology = options.tpu.partition(':')[2]
  chips = math.prod(map(int, topology.split('x')))
  return max(1, chips // options.chips_per_node)


def variables(options: argparse.Namespace) -> list[Manifest]:
  """Of the environment of a container: how its process finds the others.

  JAX knows TPU slices by itself. For the rest Slurm's variables, which every
  supported JAX reads alike, as in launch/local.py.
  """
  shown = [{'name': 'PYTHONUNBUFFERED', 'value': '1'}]
  if options.tpu:
    return [*shown, _field('JOB_INDEX', 'jobset.sigs.k8s.io/job-index')]
  if _processes(options) == 1:
    return shown
  first = f'{options.name}-run-0-0.{options.name}'
  devices = ','.join(map(str, range(max(1, options.gpus_per_node))))
  values = {
    'JAX_COORDINATOR_ADDRESS': f'{first}:{PORT}',
    'JAX_COORDINATOR_BIND_ADDRESS': f'0.0.0.0:{PORT}',
    'JAX_LOCAL_DEVICE_IDS': devices,
    'JAX_CPU_COLLECTIVES_IMPLEMENTATION': 'gloo',
    'SLURM_JOB_ID': '1',
    'SLURM_STEP_NODELIST': first,
    'SLURM_NTASKS': str(_processes(options)),
    'SLURM_LOCALID': '0',
  }
  index = 'batch.kubernetes.io/job-completion-index'
  shown += [{'name': name, 'value': value} for name, value in values.items()]
  return [*shown, _field('SLURM_PROCID', index)]


def _field(name: str, annotation: str) -> Manifest:
  path = f"metadata.annotations['{annotation}']"
  return {'name': name, 'valueFrom': {'fieldRef': {'fieldPath': path}}}


def resources(options: argparse.Namespace) -> Manifest:
  """Of a container, and no more than its node has."""
  limits: dict[str, Any] = {}
  if options.collect:
    return {}
  if options.tpu:
    limits['google.com/tpu'] = options.chips_per_node
  elif options.gpus_per_node:
    limits['nvidia.com/gpu'] = options.gpus_per_node
  requests = dict(word.split('=', 1) for word in options.request)
  return {'limits': limits, 'requests': {**requests, **limits}}


def pod(options: argparse.Namespace) -> Manifest:
  """The template of all pods of a job."""
  claims = [volume.split(':', 1) for volume in options.volume]
  names = [f'volume-{i}' for i in range(len(claims))]
  spec: Manifest = {
    'restartPolicy': 'Never',
    # From SIGTERM to the kill.
    'terminationGracePeriodSeconds': options.save_deadline + MARGIN_SECONDS,
    'containers': [
      {
        'name': 'run',
        'image': options.image,
        'command': ['/bin/sh', '-c', script(options)],
        'env': variables(options),
        'resources': resources(options),
        'volumeMounts': [
          {'name': name, 'mountPath': path}
          for name, (_, path) in zip(names, claims, strict=True)
        ]
        + [{'name': 'shm', 'mountPath': '/dev/shm'}],
      }
    ],
    'volumes': [
      {'name': name, 'persistentVolumeClaim': {'claimName': claim}}
      for name, (claim, _) in zip(names, claims, strict=True)
    ]
    + [{'name': 'shm', 'emptyDir': {'medium': 'Memory'}}],
  }
  if options.tpu and not options.collect:
    kind, _, topology = options.tpu.partition(':')
    spec['nodeSelector'] = {
      'cloud.google.com/gke-tpu-accelerator': kind,
      'cloud.google.com/gke-tpu-topology': topology,
    }
  if options.priority_class:
    spec['priorityClassName'] = options.priority_class
  return {'metadata': {'labels': {'app': 'gan-jax'}}, 'spec': spec}


def failure_rules(final: str) -> Manifest:
  """What becomes of a job one of whose pods failed.

  Args:
    final: the action on an exit code that recurs.
  """
  recurring = sorted(set(restarts.FINAL) - {restarts.DONE})

  def on(*codes: int) -> Manifest:
    return {'containerName': 'run', 'operator': 'In', 'values': [*codes]}

  condition = {'type': 'DisruptionTarget', 'status': 'True'}
  return {
    'rules': [
      {'action': final, 'onExitCodes': on(*recurring)},
      {'action': 'Ignore', 'onExitCodes': on(restarts.SAVED)},
      {'action': 'Ignore', 'onPodConditions': [condition]},
    ]
  }


def _metadata(options: argparse.Namespace, name: str) -> Manifest:
  labels = {'app': 'gan-jax'}
  if options.queue:
    labels['kueue.x-k8s.io/queue-name'] = options.queue
  if options.priority:
    labels['kueue.x-k8s.io/priority-class'] = options.priority
  found: Manifest = {'name': name, 'labels': labels}
  if options.namespace:
    found['namespace'] = options.namespace
  return found


def run_manifest(options: argparse.Namespace) -> Manifest:
  """A run as a JobSet."""
  hosts = _hosts(options) if options.tpu else options.nodes
  job = {
    'parallelism': hosts,
    'completions': hosts,
    'completionMode': 'Indexed',
    'backoffLimit': 0,
    'podFailurePolicy': failure_rules('FailJob'),
    'template': pod(options),
  }
  metadata = _metadata(options, options.name)
  if options.tpu:
    key = 'alpha.jobset.sigs.k8s.io/exclusive-topology'
    metadata['annotations'] = {key: 'cloud.google.com/gke-nodepool'}
  final = {
    'name': 'recurs',
    'action': 'FailJobSet',
    'onJobFailureReasons': ['PodFailurePolicy'],
  }
  return {
    'apiVersion': 'jobset.x-k8s.io/v1alpha2',
    'kind': 'JobSet',
    'metadata': metadata,
    'spec': {
      'network': {'enableDNSHostnames': True, 'subdomain': options.name},
      'failurePolicy': {'maxRestarts': options.crashes, 'rules': [final]},
      'replicatedJobs': [
        {
          'name': 'run',
          'replicas': options.slices,
          'template': {'spec': job},
        }
      ],
    },
  }


def ablation_manifest(options: argparse.Namespace) -> Manifest:
  """An ablation as an Indexed Job, each index a share of its runs."""
  return {
    'apiVersion': 'batch/v1',
    'kind': 'Job',
    'metadata': _metadata(options, options.name),
    'spec': {
      'completions': options.ablate,
      'parallelism': options.throttle or options.ablate,
      'completionMode': 'Indexed',
      'backoffLimitPerIndex': options.crashes,
      'podFailurePolicy': failure_rules('FailIndex'),
      'template': pod(options),
    },
  }


def collect_manifest(options: argparse.Namespace) -> Manifest:
  """The job that makes the results of an ablation."""
  return {
    'apiVersion': 'batch/v1',
    'kind': 'Job',
    'metadata': _metadata(options, f'{options.name}-collect'),
    'spec': {'backoffLimit': 2, 'template': pod(options)},
  }


def manifest(options: argparse.Namespace) -> Manifest:
  """What the options ask for."""
  if options.collect:
    return collect_manifest(options)
  return (ablation_manifest if options.ablate else run_manifest)(options)


def parse(words: Sequence[str]) -> argparse.Namespace:
  """The options, and in `extra` what comes after `--`."""
  words, extra = restarts.split_words(words)
  parser = restarts.make_parser(__doc__)
  add = parser.add_argument
  add('--name', required=True, help='of the job')
  add('--image', required=True, help='with gan_jax and launch/ in it')
  add('--volume', action='append', default=[], help='CLAIM:PATH, seen by all')
  add('--flagfile', default='', help='flags of the run, in the container')
  add(
    '--workdir',
    required=True,
    help='folder of the run on a volume, or URL',
  )
  add('--nodes', type=int, default=1, help='pods of one process each')
  add('--gpus_per_node', type=int, default=0, help='0: the run is on CPU')
  add('--tpu', default='', help='KIND:TOPOLOGY of GKE, e.g. tpu-v6e-slice:4x4')
  add('--chips_per_node', type=int, default=4, help='TPU chips of a host')
  add('--slices', type=int, default=1, help='TPU slices of a run')
  add('--request', action='append', default=[], help='cpu=8, memory=32Gi, ...')
  add('--ablate', type=int, default=0, help='pods of an ablation; 0: a run')
  add('--throttle', type=int, default=0, help='of them at a time; 0: all')
  add('--collect', action='store_true', help='the results of an ablation')
  add('--module', default='gan_jax.train', help='what the pods of a run do')
  add('--queue', default='', help="Kueue's local queue")
  add('--priority', default='', help="Kueue's priority class")
  add('--priority_class', default='', help="the pods' own priority class")
  add('--namespace', default='', help="default: kubectl's")
  add('--save_deadline', type=int, default=60, help='seconds a save may take')
  add('--crashes', type=int, default=restarts.CRASHES, help='tolerated')
  add('--stalls', type=int, default=restarts.STALLS, help='restarts likewise')
  add('--python', default='python', help='of one or several words')
  add('--launch', default='/opt/gan_jax/launch', help='launch/ in the image')
  add('--job', default='', help='default: the name and the time')
  add('--dry_run', action='store_true', help='print the manifest, no more')
  options = parser.parse_args(words)
  options.extra = extra
  options.job = options.job or f'{options.name}-{int(time.time())}'
  for message in _mistakes(options):
    parser.error(message)
  return options


def _mistakes(options: argparse.Namespace) -> list[str]:
  found = []
  if not re.fullmatch(r'[a-z]([-a-z0-9]{0,38}[a-z0-9])?', options.name):
    found.append('--name: 40 lower-case letters, digits and - at the most')
  for volume in options.volume:
    if not re.fullmatch(r'[^:]+:/.+', volume):
      found.append(f'--volume={volume}: write CLAIM:/PATH')
  paths = [volume.partition(':')[2].rstrip('/') for volume in options.volume]
  inside = [p for p in paths if f'{options.workdir}/'.startswith(f'{p}/')]
  lasts = restarts.is_url(options.workdir)
  if not lasts and (not inside or options.workdir.rstrip('/') in inside):
    found.append(
      f'--workdir={options.workdir}: a folder in that of a --volume, which'
      ' outlives the pods, or a URL such as s3://bucket/runs/a'
    )
  if options.tpu and not re.fullmatch(r'[\w-]+:\d+(x\d+)*', options.tpu):
    found.append(f'--tpu={options.tpu}: write KIND:TOPOLOGY, as 2x4')
  if options.tpu and options.gpus_per_node:
    found.append('--tpu and --gpus_per_node: one of them')
  if any('=' not in word for word in options.request):
    found.append('--request: write cpu=8 or memory=32Gi')
  counts = (options.nodes, options.slices, options.chips_per_node)
  if min(counts) < 1 or options.gpus_per_node < 0:
    found.append('--nodes, --slices and --chips_per_node: 1 or more')
  limits = (options.ablate, options.throttle, options.crashes, options.stalls)
  if min(*limits, options.save_deadline) < 0:
    found.append('--ablate, --throttle, --crashes, --stalls: 0 or more')
  several = options.nodes * options.slices > 1
  several = several or (bool(options.tpu) and not found and _hosts(options) > 1)
  is_ablation = options.ablate or options.collect
  if is_ablation and options.module not in ('gan_jax.train', 'gan_jax.ablate'):
    found.append('--module: --ablate and --collect say it; leave it out')
  if options.ablate and several:
    found.append('--ablate: pods of one process each')
  return found


def create(made: Mapping[str, Any]) -> int:
  """Hands a manifest to kubectl; its exit code."""
  words = ['kubectl', 'create', '-f', '-']
  try:
    done = subprocess.run(words, input=f'{to_yaml(made)}\n', text=True)
  except FileNotFoundError:
    print('error: kubectl is not here; see --dry_run', file=sys.stderr)
    return 1
  return done.returncode


def main(words: Sequence[str]) -> int:
  """Creates or shows the job."""
  made = manifest(parse(words))
  if '--dry_run' in words[: words.index('--') if '--' in words else None]:
    print(to_yaml(made))
    return 0
  return create(made)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
