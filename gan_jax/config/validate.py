"""What makes a flag's value of no use, alone or with others.

Nothing here is heavy to import: a misspelt value is answered at once.
"""

import dataclasses
import difflib
import math
import pathlib
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gan_jax.config import registry


class ConfigError(ValueError):
  """A flag's value is of no use; the message says which and what to do."""

  exit_code = 2


# Schedules whose step is one draw of noise and one real batch anyway.
_ONE_LOOK = ('simultaneous', 'optimistic', 'consensus')
_FLOAT32_MIN = 2.0**-126  # what is smaller may be 0 on the device


def nearest(word: str, words: Sequence[str]) -> str:
  """A remedy for a misspelt word: the closest ones, or all of them."""
  close = difflib.get_close_matches(word, words, n=2)
  if close:
    return f'did you mean {" or ".join(close)}?'
  return f'use one of {", ".join(words)}'


def suitable_network(dataset: str) -> str:
  """The architecture for data when none is asked for."""
  kind, _, _ = dataset.partition(':')
  densities = ('density', *registry.names('gan_jax.data', 'DENSITIES'))
  return 'mlp' if kind in densities else 'dcgan'


def _float32(value: float) -> float:
  """A number as the device will have it."""
  try:
    return float(struct.unpack('f', struct.pack('f', value))[0])
  except OverflowError:
    return math.inf


def problems(
  field: dataclasses.Field[Any], value: Any, words: Sequence[str]
) -> list[str]:
  """What is wrong with one value, of which only `words` may be taken."""
  flag, limits = f'--{field.name}={value}', field.metadata
  if isinstance(value, str):
    if words and value not in words and value != field.default:
      return [f'{flag}: {nearest(value, words)}']
    if value != value.strip() or not value.isprintable():
      return [f'{flag!r}: remove white space at the ends and line breaks']
    return []
  if isinstance(value, bool):
    return []
  if not math.isfinite(value):
    return [f'{flag}: use a finite number']
  if value and not _FLOAT32_MIN <= abs(_float32(value)) < math.inf:
    return [f'{flag}: use 0 or a size from 1e-37 to 3e38 (float32)']
  if limits['low'] is not None and value < limits['low']:
    return [f'{flag}: use {limits["low"]} or more']
  if limits['above'] is not None and value <= limits['above']:
    return [f'{flag}: use more than {limits["above"]}']
  if limits['high'] is not None and value > limits['high']:
    return [f'{flag}: use {limits["high"]} or less']
  if limits['below'] is not None and _float32(value) >= limits['below']:
    return [f'{flag}: use less than {limits["below"]}']
  return []


def contradictions(c: Any, defaults: Mapping[str, Any]) -> list[str]:
  """Values that are fine alone and of no use, or no effect, together."""
  return [
    *_schedules(c, defaults),
    *_terms(c),
    *_rates(c),
    *_samples(c),
    *_scores(c),
  ]


def _schedules(c: Any, defaults: Mapping[str, Any]) -> list[str]:
  """What is of no use in the flags of the players' moves."""
  found = []
  for name in ('d_steps', 'g_steps'):
    count = getattr(c, name)
    if (
      c.schedule in registry.names('gan_jax.game.plan', 'TOGETHER')
      and count != 1
    ):
      found.append(
        f'--{name}={count}: under --schedule={c.schedule} both players move at'
        f' once; use --{name}=1 or --schedule=alternating'
      )
  for name in ('reuse_noise', 'reuse_real'):
    if getattr(c, name) and c.schedule in _ONE_LOOK:
      found.append(
        f'--{name}=true: has no effect under --schedule={c.schedule}, which'
        ' draws once in a step; leave it out'
      )
  for name, schedule in (('unroll_steps', 'unrolled'), ('consensus',) * 2):
    value = getattr(c, name)
    if c.schedule != schedule and value != defaults[name]:
      found.append(
        f'--{name}={value}: has no effect under --schedule={c.schedule}; use'
        f' --schedule={schedule} or leave it out'
      )
  return found


def _terms(c: Any) -> list[str]:
  """What is of no use in what the losses are made of."""
  found = []
  if c.label_real == c.label_fake:
    found.append(
      f'--label_real={c.label_real}: is --label_fake too, and D would have'
      ' nothing to tell apart; use two numbers'
    )
  for parse, text in (
    (penalties, c.regularizer),
    (augmentations, c.diffaugment),
  ):
    try:
      parse(text)
    except ConfigError as error:
      found.append(str(error))
  if c.regularizer_every > 1 and not c.regularizer:
    found.append(
      f'--regularizer_every={c.regularizer_every}: has no effect without'
      ' --regularizer; leave it out'
    )
  return found


def _rates(c: Any) -> list[str]:
  """What is of no use in the flags of the learning rates."""
  found = []
  if c.lr_schedule == 'constant' and c.lr_final != 1:
    found.append(
      f'--lr_final={c.lr_final}: has no effect under --lr_schedule=constant;'
      ' choose a schedule or leave it out'
    )
  if c.lr_schedule == 'exponential' and c.lr_final == 0:
    found.append(
      '--lr_final=0.0: an exponential fall never reaches 0; use a small'
      ' positive factor'
    )
  if c.lr_warmup >= c.steps:
    found.append(f'--lr_warmup={c.lr_warmup}: use fewer than --steps={c.steps}')
  return found


def _samples(c: Any) -> list[str]:
  """What is of no use in what D is shown."""
  found = []
  if c.batch_size % c.packing:
    found.append(
      f'--packing={c.packing}: does not divide --batch_size={c.batch_size}; the'
      ' batch counts samples, not packs'
    )
  if c.instance_noise_kimg and not c.instance_noise:
    found.append(
      f'--instance_noise_kimg={c.instance_noise_kimg}: has no effect without'
      ' --instance_noise; set its deviation'
    )
  if c.channels == 2:
    found.append('--channels=2: use 1 (grey) or 3 (colour)')
  return found


_IDLE_ON_DIRAC = {
  'orthogonal': 'kernels',
  'orthogonal_g': 'kernels',
  'zcr': 'use of noise',
  'zcr_g': 'use of noise',
}


def idle(c: Any, fields: Mapping[str, Any], relativistic: bool) -> list[str]:
  """What is taken and has no effect: for a person to know."""
  found = []
  for name, rule in (('beta2_g', 'optimizer_g'), ('beta2_d', 'optimizer_d')):
    value = getattr(c, name)
    if value != fields[name].default and getattr(c, rule) == 'sgd':
      found.append(f'--{name}={value}: has no effect under --{rule}=sgd')
  for player in 'gd':
    final = getattr(c, f'beta1_final_{player}')
    if final and final == getattr(c, f'beta1_{player}'):
      found.append(
        f'--beta1_final_{player}={final}: has no effect: --beta1_{player} is'
        f' {final} from the start'
      )
  together = c.schedule in registry.names('gan_jax.game.plan', 'TOGETHER')
  if c.reuse_real and c.d_steps == 1 and not (together or relativistic):
    found.append(
      f'--reuse_real=true: has no effect: with --d_steps=1 and --objective='
      f'{c.objective} a step has one real batch anyway'
    )
  for term in penalties(c.regularizer) if c.network == 'dirac' else []:
    if term.name in _IDLE_ON_DIRAC:
      found.append(
        f'--regularizer={c.regularizer}: {term.name} has no effect on'
        f' --network=dirac, which has no {_IDLE_ON_DIRAC[term.name]}'
      )
  return found


def metric_words(metrics: str) -> list[str]:
  """The names in `--metrics`.

  >>> metric_words('kid, fid')
  ['kid', 'fid']
  """
  return [word.strip() for word in metrics.split(',') if word.strip()]


def metric_faults(metrics: str) -> list[str]:
  """What is wrong with the names in `--metrics`."""
  found: list[str] = []
  words = metric_words(metrics)
  if words:
    known = (
      *registry.names('gan_jax.metrics', 'METRICS'),
      *registry.names('gan_jax.evaluation.evaluator', 'PROTOCOLS'),
    )
    found += [
      f'--metrics={metrics}: {word}: {nearest(word, known)}'
      for word in words
      if word not in known
    ]
  if len(set(words)) < len(words):
    found.append(f'--metrics={metrics}: one of them is there twice')
  return found


def check_scored(workdir: str, metrics: str, features: str) -> None:
  """Refuses what cannot be scored, as far as names tell.

  Raises:
    ConfigError: naming the flag.
  """
  faults = metric_faults(metrics)
  kinds = registry.names('gan_jax.features', 'FEATURES')
  kind = features.partition('-')[0]
  if kind and kind not in kinds:
    faults.append(f'--features={features}: {kind}: {nearest(kind, kinds)}')
  if faults:
    raise ConfigError(faults[0])
  if workdir:
    config_file(workdir)


_OF_RUNS = ('step', 'all', 'follow', 'follow_timeout', 'ema', 'neighbours')
_OF_IMAGES = ('out',)


def check_effect(given: Mapping[str, Any], images: str) -> None:
  """Refuses flags of an evaluation that would not be read.

  Args:
    given: the flags that were given, and their values.
    images: what is scored in place of a run, if anything is.

  Raises:
    ConfigError: naming the flag.
  """
  kinds = ('--images', 'a run (--workdir)')
  there, other = kinds if images else kinds[::-1]
  for name in _OF_RUNS if images else _OF_IMAGES:
    if name in given:
      raise ConfigError(
        f'--{name}={given[name]}: has no effect on {there}, only on {other};'
        ' leave it out'
      )


def config_file(workdir: str | pathlib.Path) -> pathlib.Path:
  """The file of a run's configuration.

  Raises:
    ConfigError: if there is no run there.
  """
  path = pathlib.Path(workdir) / 'config.flags'
  if not path.is_file():
    raise ConfigError(
      f'--workdir={workdir}: no run there (no {path.name}); start one with'
      f' python -m gan_jax.train --workdir={workdir}'
    )
  return path


def _scores(c: Any) -> list[str]:
  """What is of no use in the flags of scores in training."""
  words = metric_words(c.metrics)
  found = metric_faults(c.metrics)
  for name in ('eval_every', 'features', 'weights', 'keep_best'):
    value = getattr(c, name)
    if value and not words:
      found.append(
        f'--{name}={value}: has no effect without --metrics; name some or leave'
        ' it out'
      )
  if c.keep_best and words and c.keep_best not in words:
    found.append(
      f'--keep_best={c.keep_best}: is none of --metrics={c.metrics}; use one of'
      ' them'
    )
  return found


class Penalty(NamedTuple):
  """One word of `--regularizer`; the weight is None where it was left out."""

  name: str
  place: str
  weight: float | None


def penalties(text: str) -> list[Penalty]:
  """What `--regularizer` says.

  Raises:
    ConfigError: for a word that is no regularizer, twice there, or ill formed.

  >>> penalties('r1:0.5,wgan_gp@real')[0]
  Penalty(name='r1', place='', weight=0.5)
  """
  known = registry.names('gan_jax.game.regularizers', 'REGULARIZERS')
  found: list[Penalty] = []
  for word in text.split(',') if text else []:
    rest, colon, number = word.partition(':')
    name, _, place = rest.partition('@')
    if name not in known:
      raise ConfigError(f'--regularizer={text}: {name}: {nearest(name, known)}')
    if (name, place) in [(p.name, p.place) for p in found]:
      raise ConfigError(f'--regularizer={text}: {rest} is there twice')
    try:
      weight = float(number) if colon else None
    except ValueError:
      weight = math.nan
    if weight is not None and not 0 < _float32(weight) < math.inf:
      raise ConfigError(
        f'--regularizer={text}: the weight {number!r} of {rest}: use a positive'
        ' number'
      )
    found.append(Penalty(name, place, weight))
  return found


def augmentations(text: str) -> tuple[str, ...]:
  """What `--diffaugment` says.

  Raises:
    ConfigError: for a word that is no augmentation.
  """
  known = registry.names('gan_jax.game.augment', 'AUGMENTATIONS')
  words = tuple(text.split(',')) if text else ()
  for word in words:
    if word not in known:
      raise ConfigError(f'--diffaugment={text}: {nearest(word, known)}')
  return words
