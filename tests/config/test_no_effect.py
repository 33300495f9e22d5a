"""Nothing is silently ignored: one flag is changed, and something else is too.

A flag that is given is refused, is warned of, or changes what is computed:
the step or the initial state as they are traced, a hyper-parameter that the
step reads, the data and its order. What flags of places and cadences change is
listed beside them.
"""

import dataclasses
import functools
import hashlib
import re

import jax
import numpy as np
import pytest
from helpers import commands, small
from jax.interpreters import partial_eval

from gan_jax.ablation import plan
from gan_jax.config import app, validate
from gan_jax.config.schema import FIELDS, ConfigError
from gan_jax.evaluation import scorer
from gan_jax.game.component import hyperparameters
from gan_jax.runtime.errors import ArgumentError
from gan_jax.training import setup as setup_lib

# Another value of each flag that concerns what is computed.
VALUES = {
  'objective': ['hinge'],
  'schedule': ['simultaneous'],
  'd_steps': [2],
  'g_steps': [2],
  'unroll_steps': [3],
  'consensus': [0.2],
  'reuse_noise': [True],
  'reuse_real': [True],
  'accumulate': [2],
  'regularizer': ['r1', 'clip', 'zcr_g', 'r2:0.5'],
  'regularizer_every': [2],
  'label_smoothing': [0.1],
  'label_real': [0.9],
  'label_fake': [0.1],
  'label_target': [0.8],
  'instance_noise': [0.1],
  'instance_noise_kimg': [1.0],
  'diffaugment': ['color'],
  'packing': [2],
  'network': ['sndcgan', 'goodfellow2014'],
  'width': [3],
  'depth': [2],
  'latent_dim': [3],
  'latent': ['uniform'],
  'norm_g': ['layer'],
  'norm_d': ['layer'],
  'conditioning': ['projection'],
  'precision': ['bfloat16'],
  'matmul_precision': ['bfloat16', 'tensorfloat32', 'highest'],
  'optimizer_g': ['sgd'],
  'optimizer_d': ['lion'],
  'lr_g': [1e-3],
  'lr_d': [1e-3],
  'beta1_g': [0.1],
  'beta1_d': [0.1],
  'beta1_final_g': [0.9, 0.5],
  'beta1_final_d': [0.9, 0.5],
  'beta2_g': [0.9],
  'beta2_d': [0.9],
  'clip_g': [1.0],
  'clip_d': [1.0],
  'lr_schedule': ['linear', 'cosine', 'exponential'],
  'lr_warmup': [1, 2],
  'lr_final': [0.5, 1.0],
  'ema_halflife_kimg': [0.0, 5.0],
  'dataset': ['grid'],
  'data_dir': ['elsewhere'],
  'image_size': [6],
  'channels': [3],
  'flip': [True],
  'max_megapixels': [7.0],
  'keep_rows': [False],
  'class_sampling': ['uniform'],
  'residence': ['device', 'stream'],
  'batch_size': [4],
  'seed': [1],
}
# What is changed by a flag of which no computation depends.
ALWAYS = {
  'log_every': 'lines of the log',
  'sample_every': 'snapshots',
  'dynamics_every': 'lines of dynamics.jsonl',
  'metrics': 'scores',
  'report': 'report.html',
  'profile': 'profile/',
  'workdir': 'the folder',
  'steps': 'the length of the run',
  'checkpoint_every': 'checkpoints',
  'keep_checkpoints': 'checkpoints',
  'devices': 'the devices',
  'deterministic': 'the kernels of a GPU',
  'multihost': 'the processes',
  'save_deadline': 'the end of a process that has lost the others',
  'compilation_cache': 'files of the cache',
}
SCORING = {
  'eval_every': [3, 100],
  'eval_samples': [64],
  'eval_seeds': [2],
  'features': ['pixels'],
  'weights': ['w.npz'],
  'keep_best': ['modes'],
}
POINTS = small.ring(width=2, depth=1, batch_size=2, flip=False)
IMAGES = small.digits(width=2, depth=1, batch_size=2, flip=False)
BASES = {
  'points': POINTS,
  'images': IMAGES,
  'lazy': dataclasses.replace(POINTS, regularizer='r1', optimizer_d='sgd'),
  'decay': dataclasses.replace(
    POINTS, lr_schedule='cosine', optimizer_g='rmsprop', optimizer_d='nadam'
  ),
  'least_squares': dataclasses.replace(
    POINTS, objective='least_squares', schedule='unrolled', instance_noise=0.1
  ),
  'consensus': dataclasses.replace(
    POINTS, schedule='consensus', objective='wasserstein', regularizer='clip'
  ),
  'relativistic': dataclasses.replace(
    POINTS, objective='relativistic', schedule='extragradient'
  ),
  'classes': dataclasses.replace(IMAGES, conditioning='projection'),
  'dirac': dataclasses.replace(
    POINTS, dataset='delta', network='dirac', width=0, depth=0
  ),
}


def test_every_flag_is_looked_at():
  flags = [*VALUES, *ALWAYS, *SCORING, 'num_samples']
  assert sorted(flags) == sorted(FIELDS)


@functools.cache
def build(config):
  """The set-up of a configuration, and what is said of it."""
  setup = setup_lib.build(config)
  return setup, '\n'.join(setup_lib.cautions(setup))


def traced(f, *args):
  """The hash of a traced function, and which arguments it reads."""
  closed = jax.make_jaxpr(f)(*args)
  every = [True] * len(closed.jaxpr.outvars)
  jaxpr, read = partial_eval.dce_jaxpr(closed.jaxpr, every)
  text = re.sub(r'0x[0-9a-f]+', '', str(jaxpr))
  total = hashlib.sha256(text.encode())
  for const in closed.consts:
    if not jax.dtypes.issubdtype(const.dtype, jax.dtypes.prng_key):
      total.update(np.asarray(const).tobytes())
  return total.hexdigest(), read


def without_copies(setup):
  """Its initial state and step, as functions of what can be changed."""
  hyper = hyperparameters(setup.trainer)
  shapes = setup.shapes.replace(hyper={})
  n, k = setup.config.batch_size, setup.trainer.real_batches
  networks = setup.networks
  x = jax.ShapeDtypeStruct((k, n, *networks.sample_shape), np.float32)
  label = jax.ShapeDtypeStruct((k, n), np.int32)
  batch = (x, label) if networks.classes else x

  def step(hyper, state, batch):
    state, logs = setup.trainer.step(state.replace(hyper=hyper), batch)
    return state.replace(hyper={}), logs

  numbers = {k: np.float32(v) for k, v in sorted(hyper.items())}
  return traced(step, numbers, shapes, batch), numbers


@functools.cache
def signature(config):
  """What a run computes, so that two that compute the same have the same."""
  setup, _ = build(config)
  (step, read), numbers = without_copies(setup)
  start, _ = traced(setup.trainer.init, jax.random.key(0))
  feed = setup.feed
  rows = jax.tree.leaves(feed.chunk(0, 2))
  used = [(k, float(v)) for (k, v), r in zip(numbers.items(), read) if r]
  return (
    *(step, start, tuple(used), feed.fingerprint, feed.resident),
    tuple(np.asarray(x).tobytes() for x in rows),
    # The key is an argument of both.
    *(config.seed, config.flip),
  )


def verdict(base, name, value):
  """`refused`, `warned`, `changed`, or what is wrong: `ignored`."""
  config = dataclasses.replace(base, **{name: value})
  try:
    _, said = build(config.validate())
  except ArgumentError:
    return 'refused'
  if f'`{name}=' in said:
    return 'warned'
  same = signature(config) == signature(base)
  return 'ignored' if same else 'changed'


def changes(name):
  """Flags of a base at other values: all, or those of the game and its play."""
  base, groups = BASES[name], ('The game', 'Optimizers')
  return [
    (flag, value)
    for flag, values in VALUES.items()
    for value in values
    if value != getattr(base, flag)
    # Of images these say where they are, and no more.
    if not (base.dataset == 'digits' and flag in ('data_dir', 'residence'))
    if name in ('points', 'images') or FIELDS[flag].metadata['group'] in groups
  ]


@pytest.mark.slow
@pytest.mark.parametrize('name', BASES)
def test_no_flag_is_ignored(name, digits):
  del digits
  verdicts = {
    f'{flag}={value}': verdict(BASES[name], flag, value)
    for flag, value in changes(name)
  }
  ignored = [word for word, what in verdicts.items() if what == 'ignored']
  assert ignored == [], verdicts
  assert list(verdicts.values()).count('changed') > 10


def test_the_rule_sees_a_flag_that_is_ignored(monkeypatch):
  """Were it not said, the folder of data would be ignored by a density."""
  assert verdict(POINTS, 'data_dir', 'elsewhere') == 'warned'
  assert verdict(POINTS, 'd_steps', 2) == 'changed'
  assert verdict(POINTS, 'lr_final', 0.5) == 'refused'
  build.cache_clear()
  monkeypatch.setattr(setup_lib, 'cautions', lambda setup: [])
  assert verdict(POINTS, 'data_dir', 'elsewhere') == 'ignored'
  build.cache_clear()


def test_what_is_of_scores_is_refused_without_any():
  for name, values in SCORING.items():
    for value in values:
      with pytest.raises(ConfigError, match=f'`{name}={value}`: has no effect'):
        dataclasses.replace(POINTS, **{name: value}).validate()
      dataclasses.replace(POINTS, metrics='modes', **{name: value}).validate()


@pytest.mark.parametrize(
  ('name', 'value'),
  [('num_samples', 9), ('residence', 'device'), ('data_dir', 'x')],
)
def test_what_a_density_has_no_use_of_is_warned_of(name, value):
  config = dataclasses.replace(POINTS, **{name: value})
  (text,) = validate.idle_on_density(config, FIELDS)
  assert text.startswith(f'`{name}={value}`: has no effect on ')


def test_flags_of_the_other_commands_without_effect(tmp_path):
  workdir = tmp_path / 'run'
  workdir.mkdir()
  (workdir / 'config.flags').write_text('--dataset=ring\n')
  run, base = (
    f'--workdir={workdir}',
    ('--dataset=ring', '--vary=lr_g=1e-3,1e-4'),
  )
  ablation = f'--workdir={tmp_path / "a"}'
  for command, words, said in (
    (
      'evaluate',
      [run, '--follow_timeout=3'],
      '--follow_timeout=3.0: has no ef',
    ),
    ('evaluate', [run, '--out=x'], '--out=x: has no effect on a run'),
    ('evaluate', ['--images=digits', '--step=3'], '--step=3: has no effect on'),
    ('ablate', [ablation, *base, '--search_seed=3'], '--search_seed=3: has no'),
    (
      'ablate',
      [ablation, *base, '--collect', '--dry_run'],
      '--dry_run=true: h',
    ),
    ('ablate', [ablation, *base, '--collect', '--only=1/2'], '--only=1/2: has'),
    ('ablate', [ablation, *base, '--keep_best=x'], '--keep_best=x: is none of'),
  ):
    done = commands.run(command, *words)
    assert done.returncode == app.REFUSED, done.stderr
    assert f'error: {said}' in done.stderr
  told = plan.idle_options(
    dataclasses.replace(POINTS, sample_every=7, keep_checkpoints=9)
  )
  assert [text.partition(':')[0] for text in told] == [
    '`sample_every=7`',
    '`keep_checkpoints=9`',
  ]


def test_what_no_metric_reads_is_refused():
  for metrics, name, value in (
    ('ms_ssim', 'features', 'pixels'),
    ('ms_ssim', 'weights', 'w.npz'),
    ('inception_score', 'real_samples', 9),
    ('inception_score', 'against', 'digits'),
  ):
    options = scorer.EvaluationOptions(metrics=metrics, **{name: value})
    with pytest.raises(ArgumentError, match=f'`{name}={value}`: has no effect'):
      scorer.check_reads(options)
    scorer.check_reads(scorer.EvaluationOptions(metrics=metrics))
