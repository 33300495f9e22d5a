"""Rules of `Config`: which values are of no use, alone or together.

Every rule is stated by argument; `config/app.py` prints the flags. Nothing here
is heavy to import, so that a misspelt value is answered at once.
"""

import dataclasses
import math
import pathlib
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from gan_jax.config import registry
from gan_jax.config.parsing import (
  bound_remedy,
  parse_float,
  place_remedy,
  text_remedy,
)
from gan_jax.runtime.errors import ArgumentError
from gan_jax.runtime.names import check_names, split_names, suggest
from gan_jax.runtime.places import find_fault, printable, scheme_of


class ConfigError(ArgumentError):
  """Arguments are of no use, alone or together; a line for each.

  Attributes:
    faults: one for each line; `argument`, `value` and `remedy` are those of the
      first.
  """

  def __init__(self, *faults: ArgumentError | str) -> None:
    """Joins the messages."""
    ValueError.__init__(self, '\n'.join(map(str, faults)))
    self.faults = tuple(f for f in faults if isinstance(f, ArgumentError))
    first = self.faults[0] if self.faults else None
    self.argument = first.argument if first else ''
    self.value = first.value if first else None
    self.remedy = first.remedy if first else ''


_FLOAT32_MIN = 2.0**-126  # what is smaller may be 0 on the device


def suitable_network(dataset: str) -> str:
  """The architecture for data when none is asked for."""
  kind, _, _ = dataset.partition(':')
  densities = (
    'density',
    *registry.names('gan_jax.data.densities', 'DENSITIES'),
  )
  return 'mlp' if kind in densities else 'dcgan'


def _float32(value: float) -> float:
  """A number as the device will have it."""
  try:
    return float(struct.unpack('f', struct.pack('f', value))[0])
  except OverflowError:
    return math.inf


def problems(
  field: dataclasses.Field[Any], value: Any, words: Sequence[str]
) -> list[ArgumentError]:
  """What is wrong with one value, of which only `words` may be taken."""
  remedy = _remedy(field, value, words)
  return [ArgumentError(field.name, value, remedy)] if remedy else []


def _remedy(
  field: dataclasses.Field[Any], value: Any, words: Sequence[str]
) -> str:
  limits = field.metadata
  if isinstance(value, str):
    if words and value not in words and value != field.default:
      if not (limits['registry'] and registry.is_reference(value)):
        return suggest(value, words)
    return text_remedy(value) or (
      place_remedy(value) if limits['place'] else ''
    )
  if isinstance(value, bool):
    return ''
  names = ('low', 'high', 'above', 'below')
  bounds = {name: limits[name] for name in names}
  if isinstance(value, int):
    return bound_remedy(value, **bounds)
  if not math.isfinite(value):
    return 'use a finite number'
  if value and not _FLOAT32_MIN <= abs(_float32(value)) < math.inf:
    return 'use 0 or a size from 1e-37 to 3e38 (float32)'
  as_given = bound_remedy(value, **(bounds | {'below': None}))
  return as_given or bound_remedy(_float32(value), below=bounds['below'])


def contradictions(c: Any) -> list[ArgumentError]:
  """Values that are fine alone and of no use, or no effect, together."""
  return [
    *_place_faults(c),
    *_list_faults(c),
    *_rate_faults(c),
    *_score_faults(c),
  ]


def _place_faults(c: Any) -> Iterator[ArgumentError]:
  for name in ('workdir', 'data_dir', 'weights', 'dataset'):
    place = getattr(c, name)
    fault = find_fault(place, name)
    if fault:
      yield ArgumentError(name, printable(place), fault)


def _list_faults(c: Any) -> Iterator[ArgumentError]:
  for parse, text in (
    (penalties, c.regularizer),
    (augmentations, c.diffaugment),
  ):
    try:
      parse(text)
    except ArgumentError as error:
      yield error


def _rate_faults(c: Any) -> Iterator[ArgumentError]:
  if c.lr_schedule == 'constant' and c.lr_final:
    yield ArgumentError(
      'lr_final',
      c.lr_final,
      'has no effect under `lr_schedule=constant`; choose a schedule or leave'
      ' it out',
    )


_IDLE_ON_DIRAC = {
  'zcr': 'use of noise',
  'zcr_g': 'use of noise',
}


def idle(c: Any, fields: Mapping[str, Any], relativistic: bool) -> list[str]:
  """Warnings of values that are accepted and have no effect.

  They are of use in another cell of a sweep, or in a longer run.
  """
  messages = _idle_rates(c)
  for name, rule in (('beta2_g', 'optimizer_g'), ('beta2_d', 'optimizer_d')):
    value = getattr(c, name)
    if value != fields[name].default and getattr(c, rule) == 'sgd':
      messages.append(f'`{name}={value}`: has no effect under `{rule}=sgd`')
  for player in 'gd':
    final = getattr(c, f'beta1_final_{player}')
    if final and final == getattr(c, f'beta1_{player}'):
      messages.append(
        f'`beta1_final_{player}={final}`: has no effect: `beta1_{player}` is'
        f' {final} from the start'
      )
  if not c.keep_rows and not c.dataset.startswith('folder:'):
    messages.append(
      f'`keep_rows=false`: has no effect on `dataset={c.dataset}`, of which no'
      ' rows are kept'
    )
  if c.eval_every > c.steps:
    messages.append(
      f'`eval_every={c.eval_every}`: has no effect in a run of'
      f' `steps={c.steps}`, which is scored at its end anyway'
    )
  apart = c.schedule == 'extragradient' or relativistic
  if c.reuse_real and c.d_steps == 1 and not apart:
    messages.append(
      '`reuse_real=true`: has no effect: with `d_steps=1` and'
      f' `objective={c.objective}` a step has one real batch anyway'
    )
  if c.reuse_noise and c.network == 'dirac':
    messages.append(
      '`reuse_noise=true`: has no effect on `network=dirac`, which has no use'
      ' of noise'
    )
  for term in penalties(c.regularizer) if c.network == 'dirac' else []:
    if term.name in _IDLE_ON_DIRAC:
      messages.append(
        f'`regularizer={c.regularizer}`: {term.name} has no effect on'
        f' `network=dirac`, which has no {_IDLE_ON_DIRAC[term.name]}'
      )
  return messages


def _idle_rates(c: Any) -> list[str]:
  messages = []
  if c.lr_schedule != 'constant' and c.lr_final == 1:
    messages.append(
      f'`lr_final=1.0`: has no effect, and neither has'
      f' `lr_schedule={c.lr_schedule}`: a decay to 1 is none'
    )
  if c.lr_warmup == 1:
    messages.append(
      '`lr_warmup=1`: has no effect: the first step has the whole rate anyway'
    )
  return messages


def idle_on_density(c: Any, fields: Mapping[str, Any]) -> list[str]:
  """Warnings of values that have no effect on a density."""
  messages = []
  for name, why in (
    ('data_dir', 'which is not prepared'),
    ('residence', 'whose samples are drawn'),
    ('num_samples', 'of which 4,096 points are drawn'),
  ):
    value = getattr(c, name)
    if value != fields[name].default:
      messages.append(f'`{name}={value}`: has no effect on a density, {why}')
  return messages


def known_metrics() -> tuple[str, ...]:
  """Names of the metrics, those of plug-ins among them."""
  return registry.names('gan_jax.metrics', 'METRICS')


def metric_faults(metrics: str) -> list[ArgumentError]:
  """What is wrong with the names in `metrics`."""
  words, names = split_names(metrics), known_metrics()
  references = [word for word in words if registry.is_reference(word)]
  try:
    check_names('metrics', metrics, words, [*names, *references])
  except ArgumentError as error:
    return [error]
  return []


_OF_RUNS = (
  'step',
  'all',
  'follow',
  'follow_timeout',
  'ema',
  'neighbours',
  'class_sampling',
)
_OF_IMAGES = ('out',)


def check_evaluation(values: Mapping[str, Any], given: Collection[str]) -> None:
  """Checks what an evaluation is asked for, as far as names tell.

  Args:
    values: of all of its arguments.
    given: those that were given; each must be one that is read.

  Raises:
    ConfigError: for metrics, features or a folder that do not exist, and for
      arguments of no use together.
  """
  workdir, images = values['workdir'], values['images']
  faults: list[ArgumentError] = []
  if bool(workdir) == bool(images):
    remedy = 'name the folder of a run, or `images`: one of them'
    faults.append(ArgumentError('workdir', workdir, remedy))
  kinds = ('`images`', 'a run (`workdir`)')
  asked, other = kinds if images else kinds[::-1]
  for name in _OF_RUNS if images else _OF_IMAGES:
    if name in given:
      remedy = f'has no effect on {asked}, only on {other}; leave it out'
      faults.append(ArgumentError(name, values[name], remedy))
  if 'follow_timeout' in given and workdir and not values['follow']:
    remedy = 'has no effect without `follow`; leave it out'
    value = values['follow_timeout']
    faults.append(ArgumentError('follow_timeout', value, remedy))
  if (values['step'] is not None) + values['all'] + values['follow'] > 1:
    name = 'all' if values['all'] else 'follow'
    remedy = 'of `step`, `all` and `follow` use one of them'
    faults.append(ArgumentError(name, True, remedy))
  faults += metric_faults(values['metrics'])
  names = registry.names('gan_jax.features', 'FEATURES')
  kind = values['features'].partition('-')[0]
  if kind and kind not in names:
    remedy = f'{kind}: {suggest(kind, names)}'
    faults.append(ArgumentError('features', values['features'], remedy))
  if faults:
    raise ConfigError(faults[0])
  if workdir and not scheme_of(workdir):
    config_file(workdir)


def config_file(workdir: str | pathlib.Path) -> pathlib.Path:
  """The file of a run's configuration.

  Raises:
    ConfigError: if the folder holds no run.
  """
  path = pathlib.Path(workdir) / 'config.flags'
  if not path.is_file():
    inside = sorted(path.parent.glob(f'*/{path.name}'))[:3]
    runs = ' or '.join(str(file.parent) for file in inside)
    which = f'name one: {runs}' if runs else 'train one, or name one'
    remedy = f'no run there (no {path.name}); {which}'
    raise ConfigError(ArgumentError('workdir', str(workdir), remedy))
  return path


def _score_faults(c: Any) -> Iterator[ArgumentError]:
  words = split_names(c.metrics)
  yield from metric_faults(c.metrics)
  for name, default in (
    ('eval_every', 0),
    ('eval_samples', 10000),
    ('eval_seeds', 1),
    ('features', ''),
    ('weights', ''),
    ('keep_best', ''),
  ):
    value = getattr(c, name)
    if value != default and not words:
      yield ArgumentError(
        name,
        value,
        'has no effect without `metrics`; name some or leave it out',
      )
  if c.keep_best and words and c.keep_best not in words:
    yield ArgumentError(
      'keep_best',
      c.keep_best,
      f'is none of `metrics={c.metrics}`; use one of them',
    )


class Penalty(NamedTuple):
  """One word of `regularizer`; the weight is None where it was left out."""

  name: str
  place: str
  weight: float | None


def penalties(text: str) -> list[Penalty]:
  """What `regularizer` says.

  Raises:
    ArgumentError: for a word that is no regularizer, a repetition, or a weight
      that is no positive number.

  >>> penalties('r1:0.5,wgan_gp@real')[0]
  Penalty(name='r1', place='', weight=0.5)
  """
  names = registry.names('gan_jax.game.regularizers', 'REGULARIZERS')
  terms: list[Penalty] = []
  for word in text.split(',') if text else []:
    name, place, colon, number = _split_penalty(word, names)
    term = f'{name}@{place}' if place else name
    if name not in names and not registry.is_reference(name):
      remedy = f'{name}: {suggest(name, names)}'
      raise ArgumentError('regularizer', text, remedy)
    if (name, place) in [(p.name, p.place) for p in terms]:
      raise ArgumentError('regularizer', text, f'name {term} once')
    weight = _weight(number) if colon else None
    if weight is not None and not 0 < _float32(weight) < math.inf:
      remedy = f'the weight {number!r} of {term}: use a positive number'
      raise ArgumentError('regularizer', text, remedy)
    terms.append(Penalty(name, place, weight))
  return terms


def _split_penalty(
  word: str, names: Sequence[str]
) -> tuple[str, str, str, str]:
  """Name, place, colon and weight; a name may be `module:attribute`."""
  term, colon, number = word.partition(':')
  if colon and term.partition('@')[0] not in names and '.' in term:
    attribute, colon, number = number.partition(':')
    term = f'{term}:{attribute}'
  name, _, place = term.partition('@')
  return name, place, colon, number


def _weight(number: str) -> float:
  try:
    return parse_float(number)
  except ValueError:
    return math.nan


def augmentations(text: str) -> tuple[str, ...]:
  """What `diffaugment` says.

  Raises:
    ArgumentError: for a word that is no augmentation.
  """
  names = registry.names('gan_jax.game.augment', 'AUGMENTATIONS')
  words = tuple(text.split(',')) if text else ()
  for word in words:
    if word not in names:
      raise ArgumentError('diffaugment', text, suggest(word, names))
  return words
