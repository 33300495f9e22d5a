"""Manifests: as the API's schema has them, and of what they mean."""

import copy
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest
from helpers import clouds, compiling, pods

ROOT = pathlib.Path(__file__).parents[1]
sys.path.append(str(ROOT / 'launch'))  # as it is for a script in it
spec = importlib.util.spec_from_file_location(
  'launch_kubernetes', ROOT / 'launch' / 'kubernetes.py'
)
kubernetes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(kubernetes)

SCHEMA = ROOT / 'tests' / 'helpers' / 'jobset.schema.json'
COMMON = ['--name=digits', '--image=repo/gan_jax:1', '--volume=claim:/data']
COMMON += ['--workdir=/data/runs/a b', '--flagfile=/data/a.flags', '--job=1']
KINDS = {
  'one pod': [],
  'gpu nodes': ['--nodes=2', '--gpus_per_node=8', '--request=memory=32Gi'],
  'tpu slices': ['--tpu=tpu-v5-lite-podslice:4x4', '--slices=2'],
  'ablation': ['--ablate=6', '--throttle=2', '--gpus_per_node=1'],
  'collect': ['--ablate=6', '--collect'],
}
QUEUED = ['--queue=team', '--priority=low', '--priority_class=batch']


def made(kind, *words):
  cut = words.index('--') if '--' in words else len(words)
  words = [*COMMON, *KINDS[kind], *words[:cut], *words[cut:]]
  return kubernetes.manifest(kubernetes.parse(words))


def job_of(manifest):
  """The spec of its Job."""
  if manifest['kind'] == 'Job':
    return manifest['spec']
  return manifest['spec']['replicatedJobs'][0]['template']['spec']


def container(manifest):
  return job_of(manifest)['template']['spec']['containers'][0]


def validate(manifest):
  """Strictly: unknown fields, wrong types and missing ones raise."""
  jsonschema = pytest.importorskip('jsonschema')
  check = pytest.importorskip('kubernetes_validate')
  if manifest['kind'] == 'JobSet':
    jsonschema.validate(manifest, json.loads(SCHEMA.read_text()))
    jobs = manifest['spec']['replicatedJobs']
    for each in jobs:
      spec, name = each['template']['spec'], {'name': each['name']}
      job = {'apiVersion': 'batch/v1', 'kind': 'Job', 'metadata': name}
      check.validate({**job, 'spec': spec}, check.latest_version(), strict=True)
    return
  check.validate(manifest, check.latest_version(), strict=True)


def rename(where, old, new):
  where[new] = where.pop(old)


MUTATIONS = {
  'a field of the pod': lambda m: rename(
    job_of(m)['template']['spec'], 'restartPolicy', 'restart_policy'
  ),
  'a field of the container': lambda m: rename(container(m), 'env', 'envs'),
  'a number as a word': lambda m: job_of(m).update(completions='two'),
  'a rule without an action': lambda m: job_of(m)['podFailurePolicy']['rules'][
    0
  ].pop('action'),
  'exit codes without an operator': lambda m: job_of(m)['podFailurePolicy'][
    'rules'
  ][0]['onExitCodes'].pop('operator'),
  'no name of a volume': lambda m: job_of(m)['template']['spec']['volumes'][
    0
  ].pop('name'),
}
OF_A_JOBSET = {
  'a field of the set': lambda m: rename(m['spec'], 'network', 'net'),
  'restarts as a word': lambda m: m['spec']['failurePolicy'].update(
    maxRestarts='3'
  ),
  'an action that there is not': lambda m: m['spec']['failurePolicy']['rules'][
    0
  ].update(action='Stop'),
}


@pytest.mark.parametrize('kind', KINDS)
def test_what_is_written_is_what_the_api_takes(kind):
  manifest = made(kind, *QUEUED)
  validate(manifest)
  yaml = pytest.importorskip('yaml')
  assert yaml.safe_load(kubernetes.to_yaml(manifest)) == manifest


@pytest.mark.parametrize(
  ('kind', 'what'),
  [('ablation', name) for name in MUTATIONS]
  + [('gpu nodes', name) for name in OF_A_JOBSET]
  + [('gpu nodes', 'a field of the pod')],
)
def test_what_it_does_not_take_is_seen(kind, what):
  manifest = copy.deepcopy(made(kind))
  {**MUTATIONS, **OF_A_JOBSET}[what](manifest)
  with pytest.raises(Exception, match='.') as caught:
    validate(manifest)
  assert 'ValidationError' in type(caught.value).__name__


def test_a_run_of_gpu_nodes_joins_by_the_name_of_its_first_pod():
  manifest = made('gpu nodes', '--', '--steps=9', '--compilation_cache=/c')
  job, run = job_of(manifest), container(manifest)
  assert (job['parallelism'], job['completions']) == (2, 2)
  assert run['resources']['limits'] == {'nvidia.com/gpu': 8}
  assert run['resources']['requests']['memory'] == '32Gi'
  values = {v['name']: v.get('value') for v in run['env']}
  assert values['JAX_COORDINATOR_ADDRESS'] == 'digits-run-0-0.digits:8476'
  assert values['SLURM_NTASKS'] == '2'
  assert values['JAX_LOCAL_DEVICE_IDS'] == '0,1,2,3,4,5,6,7'
  (index,) = [v for v in run['env'] if v['name'] == 'SLURM_PROCID']
  path = index['valueFrom']['fieldRef']['fieldPath']
  assert path == (
    "metadata.annotations['batch.kubernetes.io/job-completion-index']"
  )
  assert run['command'][2] == (
    'exec python /opt/gan_jax/launch/restarts.py run --job=1 --stalls=3 --'
    " python -m gan_jax.train --flagfile=/data/a.flags '--workdir=/data/runs/a"
    " b' --save_deadline=60 --steps=9 --compilation_cache=/c --multihost=true"
  )


def test_a_tpu_slice_has_its_labels_and_one_pod_a_host():
  manifest = made('tpu slices')
  job = job_of(manifest)
  assert job['completions'] == 4  # 16 chips
  assert manifest['spec']['replicatedJobs'][0]['replicas'] == 2
  assert job['template']['spec']['nodeSelector'] == {
    'cloud.google.com/gke-tpu-accelerator': 'tpu-v5-lite-podslice',
    'cloud.google.com/gke-tpu-topology': '4x4',
  }
  assert container(manifest)['resources']['limits'] == {'google.com/tpu': 4}
  assert '--multihost=true' in container(manifest)['command'][2]
  shared = container(made('tpu slices', '--module=gan_jax.ablate'))
  assert ' -m gan_jax.ablate ' in shared['command'][2]
  (annotation,) = manifest['metadata']['annotations'].values()
  assert annotation == 'cloud.google.com/gke-nodepool'


def test_exit_codes_restart_as_everywhere():
  for kind, final in (('gpu nodes', 'FailJob'), ('ablation', 'FailIndex')):
    job = job_of(made(kind, '--crashes=5'))
    recurs, saved, evicted = job['podFailurePolicy']['rules']
    assert recurs['action'] == final
    assert recurs['onExitCodes']['values'] == [2, 3, 4]
    assert (saved['action'], saved['onExitCodes']['values']) == ('Ignore', [75])
    assert evicted['onPodConditions'][0]['type'] == 'DisruptionTarget'
    assert job['template']['spec']['restartPolicy'] == 'Never'
  assert job['backoffLimitPerIndex'] == 5
  policy = made('gpu nodes', '--crashes=5')['spec']['failurePolicy']
  assert policy['maxRestarts'] == 5
  assert policy['rules'][0]['action'] == 'FailJobSet'
  assert job_of(made('gpu nodes'))['backoffLimit'] == 0


def test_an_index_of_an_ablation_has_its_share(tmp_path):
  """As a shell has it, with what stands for the run in it."""
  manifest = made('ablation')
  assert job_of(manifest)['parallelism'] == 2
  command = container(manifest)['command']
  (tmp_path / 'python').write_text('#!/bin/sh\nprintf "<%s>" "$@"\n')
  (tmp_path / 'python').chmod(0o755)
  path = f'{tmp_path}:{os.environ["PATH"]}'
  environ = {'PATH': path, 'JOB_COMPLETION_INDEX': '5'}
  done = subprocess.run(command, env=environ, capture_output=True, text=True)
  assert '<gan_jax.ablate>' in done.stdout
  assert done.stdout.endswith('<--only=6/6>'), done.stderr
  assert '<--workdir=/data/runs/a b>' in done.stdout
  collect = made('collect')
  assert container(collect)['command'][2].endswith(' --collect')
  assert collect['metadata']['name'] == 'digits-collect'


def test_queue_priority_and_grace_period():
  manifest = made('ablation', *QUEUED, '--save_deadline=200')
  labels = manifest['metadata']['labels']
  assert labels['kueue.x-k8s.io/queue-name'] == 'team'
  assert labels['kueue.x-k8s.io/priority-class'] == 'low'
  pod = job_of(manifest)['template']['spec']
  assert pod['terminationGracePeriodSeconds'] == 230
  assert pod['priorityClassName'] == 'batch'
  command = container(manifest)['command'][2]
  assert '--compilation_cache=/data/runs/xla-cache' in command


@pytest.mark.parametrize('scheme', ['s3', 'az'])
def test_a_workdir_in_a_store_needs_no_volume(scheme):
  words = [*COMMON, f'--workdir={scheme}://b/runs/a']
  command = container(kubernetes.manifest(kubernetes.parse(words)))['command']
  assert f'--workdir={scheme}://b/runs/a' in command[2]
  # JAX keeps programs under s3:// and gs:// alone.
  cache = '--compilation_cache=s3://b/runs/xla-cache'
  assert (cache in command[2]) == (scheme == 's3')


@pytest.mark.parametrize(
  ('words', 'said'),
  [
    (['--workdir=/tmp/a'], 'outlives the pods'),
    (['--workdir=/data'], 'outlives the pods'),
    (['--name=A_b'], '--name'),
    (['--tpu=v5e'], '--tpu=v5e'),
    (['--ablate=2', '--nodes=2'], '--ablate'),
    (['--volume=claim'], '--volume=claim'),
  ],
)
def test_what_cannot_be_is_refused(words, said, capsys):
  with pytest.raises(SystemExit):
    kubernetes.parse([*COMMON, *words])
  assert said in capsys.readouterr().err


def test_it_is_handed_to_kubectl(tmp_path, monkeypatch, capsys):
  kubectl = '#!/bin/sh\necho "$@" > "$0.words"; cat > "$0.yaml"; exit 5\n'
  (tmp_path / 'kubectl').write_text(kubectl)
  (tmp_path / 'kubectl').chmod(0o755)
  monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')
  assert kubernetes.main(COMMON) == 5
  assert (tmp_path / 'kubectl.words').read_text() == 'create -f -\n'
  text = kubernetes.to_yaml(made('one pod'))
  assert (tmp_path / 'kubectl.yaml').read_text().strip() == text
  assert kubernetes.main([*COMMON, '--dry_run']) == 0
  assert capsys.readouterr().out.strip() == text


@pytest.mark.multiprocess
def test_two_pods_are_joined_by_what_jax_asks_of_the_api(tmp_path):
  """Of a run without the variables that the manifest gives its pods."""
  try:  # not whether it can be imported: launch/kubernetes.py can
    importlib.metadata.version('kubernetes')
  except importlib.metadata.PackageNotFoundError:
    pytest.skip('needs the client (pip install kubernetes), of no extra')
  manifest = made('gpu nodes')
  (given,) = [
    value['value'].partition(':')[0]
    for value in container(manifest)['env']
    if value['name'] == 'JAX_COORDINATOR_ADDRESS'
  ]
  words = [sys.executable, '-m', 'helpers.pods', 'gan_jax.train']
  words += ['--dataset=ring', '--network=mlp', '--width=4', '--steps=4']
  words += ['--batch_size=8', '--noreport', '--compilation_cache=off']
  words += [f'--workdir={tmp_path / "run"}', '--multihost=true']
  port = clouds.free_port()
  environ = {k: v for k, v in os.environ.items() if k[:5] != 'SLURM'}
  environ['PYTHONPATH'] = os.pathsep.join(
    [str(ROOT), str(ROOT / 'tests'), environ.get('PYTHONPATH', '')]
  )
  environ['XLA_FLAGS'] = compiling.of_a_process()
  with pods.Api(manifest) as api:
    started = [
      subprocess.Popen(
        ['timeout', '-k', '5', '150', *words],
        env={**environ, **pods.environment(api, index, port)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
      )
      for index in range(job_of(manifest)['parallelism'])
    ]
    said = [process.communicate()[0] for process in started]
  assert [process.returncode for process in started] == [0, 0], said
  assert all(f'the coordinator is {given}:' in text for text in said)
  facts = json.loads((tmp_path / 'run' / 'run.json').read_text())
  assert facts['outcome'] == 'done' and 'in 2 processes' in said[0], said
  assert len({*api.asked}) == 2
