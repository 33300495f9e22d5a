"""Resolution: the names and numbers of a `Config` into the objects of a game.

A number goes to the component that has a field of its path
(`objective.smoothing`); one that is given and that no component has is refused.
"""

import contextlib
import dataclasses
import difflib
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from gan_jax import networks as networks_lib
from gan_jax.config import registry, validate
from gan_jax.config.schema import FIELDS, Config
from gan_jax.game.augment import Augmentation
from gan_jax.game.component import (
  Component,
  Named,
  as_component,
  hyperparameters,
)
from gan_jax.game.game import Game, InstanceNoise
from gan_jax.game.objectives import Objective
from gan_jax.game.optimizers import (
  Constant,
  OptaxOptimizer,
  Optimizer,
  RateDecay,
)
from gan_jax.game.regularizers import Regularizer
from gan_jax.game.schedules import Schedule
from gan_jax.game.trainer import Ema, Trainer
from gan_jax.networks.base import Networks
from gan_jax.runtime.errors import ArgumentError
from gan_jax.runtime.names import suggest

# Options that take an object in the place of a name.
OBJECTS = (
  'network',
  'objective',
  'regularizer',
  'schedule',
  'optimizer_g',
  'optimizer_d',
  'diffaugment',
)
Objects = Mapping[str, Any]
OWN = 'python:'  # how the name of a metric that was handed in begins


# Groups of options that say how a trainer is made: none has a say beside one.
TRAINER_GROUPS = ('The game', 'Networks', 'Optimizers')
# Of other groups, and have a say in it too.
OF_A_STEP = ('steps', 'class_sampling')


class DataSpec(NamedTuple):
  """What the networks need to know of the data.

  Attributes:
    shape: of a sample.
    bounded: whether samples lie in [-1, 1].
    classes: of their labels; 0 for none.
    mean: finds the mean sample; None where it is not known.
    class_counts: finds how many samples each class has; None where it is not
      known.
  """

  shape: tuple[int, ...]
  bounded: bool
  classes: int = 0
  mean: Any = None
  class_counts: Any = None


def split_options(
  options: Mapping[str, Any], **defaults: Any
) -> tuple[Config, dict[str, Any]]:
  """Options by name as a `Config`, and those of them that are objects.

  Raises:
    ArgumentError: for an unknown option, or a value of another type.
  """
  values: dict[str, Any] = dict(defaults)
  objects: dict[str, Any] = {}
  for name, value in options.items():
    if name not in FIELDS:
      close = difflib.get_close_matches(name, FIELDS, n=2)
      hint = 'gan-jax train --help lists those there are'
      if close:
        hint = f'did you mean {" or ".join(f"`{c}`" for c in close)}?'
      raise ArgumentError(name, value, f'no such option; {hint}')
    if name in OBJECTS and not isinstance(value, str):
      objects[name] = value
    elif name == 'metrics' and not isinstance(value, str):
      objects[name] = tuple(value)
      values[name] = ','.join(map(_name_metric, value))
    else:
      values[name] = _typed(name, value)
  own = [_name_metric(metric) for metric in objects.get('metrics', ())]
  best = f'{OWN}{values.get("keep_best", "")}'
  if best in own:
    values['keep_best'] = best
  return Config(**values).validate(), objects


def _name_metric(metric: Any) -> str:
  """A metric as a `Config` has it: its name, marked where it is an object."""
  return metric if isinstance(metric, str) else f'{OWN}{metric.name}'


def _typed(name: str, value: Any) -> Any:
  """A value of an option in the option's own type."""
  kind: Any = type(FIELDS[name].default)
  if isinstance(value, np.generic):
    value = value.item()
  if kind is float and isinstance(value, int) and not isinstance(value, bool):
    return float(value)
  if kind is str and hasattr(value, '__fspath__'):
    return str(value)
  if type(value) is not kind:
    words = {bool: 'True or False', int: 'a whole number', float: 'a number'}
    raise ArgumentError(name, value, f'use {words.get(kind, "a string")}')
  return value


def make_trainer(
  sample_shape: Sequence[int],
  *,
  classes: int = 0,
  class_counts: Sequence[int] = (),
  **options: Any,
) -> Trainer:
  """A trainer from options by their names, as the command line has them.

  Args:
    sample_shape: of one sample: (height, width, channels) of images in [-1, 1],
      or (dim,) of points.
    classes: of the labels; read unless `conditioning` is none.
    class_counts: samples that the data has of each class, by which G is asked
      for them; empty: for all equally often.
    **options: flags of `gan_jax.train` by name; values are names, numbers or
      objects (`objective='hinge'`, `optimizer_g=optax.adam(1e-4)`).

  Raises:
    ArgumentError: naming the option that is of no use.

  >>> trainer = make_trainer((8, 8, 1), objective='hinge', network='mlp')
  >>> trainer.game.objective.name
  'hinge'
  """
  own = (*TRAINER_GROUPS, *OF_A_STEP)
  for name in options:
    if name in FIELDS and not {name, FIELDS[name].metadata['group']} & {*own}:
      remedy = 'is of a run, and makes no trainer another; leave it out'
      raise ArgumentError(name, options[name], remedy)
  config, objects = split_options(options)
  shape = tuple(sample_shape)
  counts = tuple(int(count) for count in class_counts)
  if options.get('class_sampling') == 'data' and not counts:
    remedy = 'give `class_counts`, the samples that the data has of each class'
    raise ArgumentError('class_sampling', 'data', remedy)
  if options.get('class_sampling') == 'uniform' and counts:
    remedy = 'have no effect under `class_sampling=uniform`; leave them out'
    raise ArgumentError('class_counts', counts, remedy)
  facts = DataSpec(
    shape,
    bounded=len(shape) == 3,
    classes=classes,
    class_counts=lambda: counts,
  )
  if 'network' not in options and not facts.bounded:
    config = dataclasses.replace(config, network='mlp')
  return build_trainer(config, facts, objects)


def build_trainer(
  config: Config, facts: DataSpec, objects: Objects | None = None
) -> Trainer:
  """The trainer of a configuration.

  Args:
    config: names and numbers.
    facts: of the data.
    objects: what stands in the place of names, by option.

  Raises:
    ArgumentError: naming the option that is of no use.
  """
  objects = objects or {}
  part = components(config, objects)
  networks = objects.get('network')
  if networks is None:
    networks = build_networks(config, facts)
  networks = sample_classes(networks, config, facts)
  with _naming():
    game = Game(
      networks,
      part['objective'],
      [*part['regularizers'].values()],
      [*part['augment'].values()],
      packing=config.packing,
      instance_noise=part['instance_noise'],
    )
    trainer = Trainer(
      game,
      objects.get('optimizer_g', part['optimizer_g']),
      objects.get('optimizer_d', part['optimizer_d']),
      part['schedule'],
      part['ema'],
      config.matmul_precision,
      config.accumulate,
    )
    trainer.check()
  on_d = game.acting('d')
  if config.regularizer_every > 1 and not on_d:
    raise ArgumentError(
      'regularizer_every',
      config.regularizer_every,
      'has no effect: there is no regularizer with a penalty on D; leave it'
      ' out',
    )
  return trainer


def build_networks(config: Config, facts: DataSpec) -> Networks:
  """G and D of a configuration, by name or `module:attribute`.

  What a plug-in or a reference names is an `Architecture`, which is built as
  the library's are, or finished `Networks`.

  Raises:
    ArgumentError: naming the option that is of no use.
  """
  if config.conditioning != 'none' and not facts.classes:
    raise ArgumentError(
      'conditioning',
      config.conditioning,
      'the data has no classes; use `conditioning=none`',
    )
  networks = _load('network', config.network)
  if isinstance(networks, Networks):
    return networks
  if not isinstance(networks, networks_lib.Architecture):
    raise ArgumentError(
      'network', config.network, 'is no `Networks` and no `Architecture`'
    )
  own = config.network in networks_lib.ARCHITECTURES
  return networks_lib.build(
    config.network if own else networks,
    facts.shape,
    bounded=facts.bounded,
    width=config.width,
    depth=config.depth,
    latent_dim=config.latent_dim,
    latent=config.latent,
    norm_g=config.norm_g,
    norm_d=config.norm_d,
    packing=config.packing,
    conditioning=config.conditioning,
    classes=facts.classes,
    dtype=jnp.dtype(config.precision),
    mean=facts.mean,
  )


def sample_classes(networks: Any, config: Config, facts: DataSpec) -> Any:
  """Networks that ask G for classes as the options say.

  Args:
    networks: that know how often by themselves (`class_counts`), or do not.
    config: whose `class_sampling` is read.
    facts: of the data.

  Raises:
    ArgumentError: if the option has no effect.
  """
  if not isinstance(networks, Networks):
    return networks  # of which the game says what is wrong
  uniform = config.class_sampling == 'uniform'
  if uniform and not networks.classes:
    raise ArgumentError(
      'class_sampling',
      'uniform',
      'has no effect: the networks have no classes; leave it out, or use'
      ' `conditioning=projection`',
    )
  if uniform and networks.class_counts:
    raise ArgumentError(
      'class_sampling',
      'uniform',
      'has no effect: the networks say how often each class is drawn'
      ' (`class_counts`); leave one of them out',
    )
  if uniform or not networks.classes or networks.class_counts:
    return networks
  counts = tuple(facts.class_counts() if facts.class_counts else ())
  if len(counts) != networks.classes:  # unknown, or refused with the data
    return networks
  return networks._replace(class_counts=counts)


def _load(option: str, name: str) -> Any:
  """The object of a name.

  Raises:
    ArgumentError: if there is none.
  """
  module, entries = _REGISTRIES[option]
  try:
    return registry.load(module, entries, name)
  except LookupError as error:
    words = registry.names(module, entries)
    raise ArgumentError(
      option, name, f'{error.args[0]}; {suggest(name, words)}'
    ) from error


_REGISTRIES = {
  'network': ('gan_jax.networks.designs', 'ARCHITECTURES'),
  'objective': ('gan_jax.game.objectives', 'OBJECTIVES'),
  'regularizer': ('gan_jax.game.regularizers', 'REGULARIZERS'),
  'schedule': ('gan_jax.game.schedules', 'SCHEDULES'),
  'optimizer_g': ('gan_jax.game.optimizers', 'OPTIMIZERS'),
  'optimizer_d': ('gan_jax.game.optimizers', 'OPTIMIZERS'),
  'diffaugment': ('gan_jax.game.augment', 'AUGMENTATIONS'),
  'lr_schedule': ('gan_jax.game.optimizers', 'DECAYS'),
}


# Components.


def components(config: Config, objects: Objects) -> Named[Any]:
  """Everything of a trainer but its networks, under the names of its fields.

  Its hyper-parameters have the paths that they have in the trainer.

  Raises:
    ArgumentError: naming the option that is of no use.
  """
  return Named(
    objective=_objective(config, objects),
    regularizers=_regularizers(config, objects),
    augment=_augment(config, objects),
    instance_noise=_instance_noise(config),
    optimizer_g=_optimizer('g', config, objects),
    optimizer_d=_optimizer('d', config, objects),
    schedule=_schedule(config, objects),
    ema=_ema(config),
  )


def hyper(config: Config, objects: Objects | None = None) -> dict[str, float]:
  """The hyper-parameters of a configuration, by path."""
  values = hyperparameters(components(config, objects or {}))
  return {path: float(value) for path, value in values.items()}


@contextlib.contextmanager
def _naming(prefix: str = '') -> Iterator[None]:
  """Names options in the place of the fields that they set."""
  names = {f.metadata['path']: n for n, f in FIELDS.items()}
  try:
    yield
  except ArgumentError as error:
    option = names.get(
      f'{prefix}.{error.argument}', _RENAMED.get(error.argument)
    )
    if option is None:
      raise
    raise ArgumentError(option, error.value, error.remedy) from error


_RENAMED = {
  'regularizers': 'regularizer',
  'augment': 'diffaugment',
  'warmup': 'lr_warmup',
  'final': 'lr_final',
}


def _numbers(
  config: Config, prefix: str, kind: type[Component]
) -> dict[str, Any]:
  """The numbers that a configuration has for a class of components.

  Raises:
    ArgumentError: for one that is given and that it has no field for.
  """
  own = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
  numbers = {}
  for name, field in FIELDS.items():
    path, none = field.metadata['path'], field.metadata['none']
    if path.rpartition('.')[0] != prefix:
      continue
    value, attribute = getattr(config, name), path.rpartition('.')[2]
    if attribute in own:
      numbers[attribute] = None if none is not None and value == none else value
    elif value != field.default and not _warned(name):
      raise _no_effect(config, name, prefix, attribute)
  return numbers


def _warned(name: str) -> bool:
  """Whether a number that has no effect is only warned of (`validate.idle`)."""
  return name.startswith('beta2')


def _no_effect(
  config: Config, name: str, option: str, attribute: str
) -> ArgumentError:
  """The error of a number that the component of an option has no field for."""
  able = [
    key
    for key in registry.names(*_REGISTRIES[option])
    if attribute in _attributes(option, key)
  ]
  return ArgumentError(
    name,
    getattr(config, name),
    f'has no effect under `{option}={getattr(config, option)}`; leave it out'
    f' or use {", ".join(able)}',
  )


def _attributes(option: str, name: str) -> set[str]:
  kind = _load(option, name)
  return (
    {f.name for f in dataclasses.fields(kind)}
    if isinstance(kind, type)
    else set()
  )


def _refuse_beside(config: Config, option: str, names: Sequence[str]) -> None:
  """Refuses numbers beside an object that has its own."""
  for name in names:
    if getattr(config, name) != FIELDS[name].default:
      raise ArgumentError(
        name,
        getattr(config, name),
        f'has no effect beside `{option}`, which was handed in whole; give it'
        ' to that object',
      )


def _options_of(prefix: str) -> list[str]:
  return [
    name
    for name, field in FIELDS.items()
    if field.metadata['path'].rpartition('.')[0] == prefix
  ]


def _component(option: str, name: str, base: type[Any]) -> Any:
  """The class, or the object, of a name."""
  part = _load(option, name)
  if isinstance(part, base) or (
    isinstance(part, type) and issubclass(part, base)
  ):
    return part
  raise ArgumentError(
    option, name, f'is no {base.__name__}, but {type(part).__name__}'
  )


def _objective(config: Config, objects: Objects) -> Objective:
  if 'objective' in objects:
    _refuse_beside(config, 'objective', _options_of('objective'))
    return as_component('objective', objects['objective'], Objective)
  kind = _component('objective', config.objective, Objective)
  if isinstance(kind, Objective):
    _refuse_beside(config, 'objective', _options_of('objective'))
    return kind
  with _naming('objective'):
    objective: Objective = kind(**_numbers(config, 'objective', kind))
    objective.check()
  return objective


def _regularizers(config: Config, objects: Objects) -> Named[Regularizer]:
  if 'regularizer' in objects:
    _refuse_beside(config, 'regularizer', ['regularizer_every'])
    given = objects['regularizer']
    items = given if isinstance(given, (list, tuple)) else [given]
    terms = [as_component('regularizer', item, Regularizer) for item in items]
  else:
    terms = [
      _regularizer(config, p) for p in validate.penalties(config.regularizer)
    ]
  named: Named[Regularizer] = Named()
  for part in terms:
    if part.name in named:
      raise ArgumentError(
        'regularizer',
        config.regularizer,
        f'{part.name} is there twice and would count twice; leave one out',
      )
    named[part.name] = part
  return named


def _regularizer(config: Config, word: validate.Penalty) -> Regularizer:
  kind = _component('regularizer', word.name, Regularizer)
  if isinstance(kind, Regularizer):
    return kind
  fields = {f.name: f for f in dataclasses.fields(kind)}
  values: dict[str, Any] = {}
  if word.place:
    if 'place' not in fields:
      raise ArgumentError(
        'regularizer',
        config.regularizer,
        f'{word.name}@{word.place}: has no place; write {word.name}',
      )
    values['place'] = word.place
  if word.weight is not None:
    number = 'weight' if 'weight' in fields else next(iter(fields))
    values[number] = word.weight
  if 'every' in fields:
    values['every'] = config.regularizer_every
  regularizer: Regularizer = kind(**values)
  try:
    regularizer.check()
  except ArgumentError as error:
    raise ArgumentError(
      'regularizer',
      config.regularizer,
      f'{word.name}@{word.place}: {error.remedy}',
    ) from error
  return regularizer


def _augment(config: Config, objects: Objects) -> Named[Augmentation]:
  if 'diffaugment' in objects:
    given = objects['diffaugment']
    items = given if isinstance(given, (list, tuple)) else [given]
  else:
    names = validate.augmentations(config.diffaugment)
    items = [_component('diffaugment', name, Augmentation) for name in names]
  augmentations = [
    as_component('diffaugment', item, Augmentation) for item in items
  ]
  return Named((part.name, part) for part in augmentations)


def _instance_noise(config: Config) -> InstanceNoise | None:
  if config.instance_noise:
    return InstanceNoise(config.instance_noise, config.instance_noise_kimg)
  if config.instance_noise_kimg:
    raise ArgumentError(
      'instance_noise_kimg',
      config.instance_noise_kimg,
      'has no effect without `instance_noise`; set its standard deviation',
    )
  return None


def _optimizer(player: str, config: Config, objects: Objects) -> Optimizer:
  option = f'optimizer_{player}'
  shared = ('lr_schedule', 'lr_warmup', 'lr_final')
  if option in objects:
    _refuse_beside(config, option, _options_of(option))
    other = 'optimizer_d' if player == 'g' else 'optimizer_g'
    if other in objects:
      _refuse_beside(config, option, shared)
    given = objects[option]
    if isinstance(given, (Optimizer, type)):
      return as_component(option, given, Optimizer)
    return OptaxOptimizer(given)  # the trainer looks into it
  kind = _component(option, getattr(config, option), Optimizer)
  if isinstance(kind, Optimizer):
    _refuse_beside(config, option, _options_of(option))
    return kind
  values = _numbers(config, option, kind)
  if values.get('beta1_final') is not None:
    values['momentum_steps'] = config.steps
  if config.lr_schedule != 'constant' or config.lr_warmup:
    values['decay'] = _decay(config)
  with _naming(option):
    optimizer: Optimizer = kind(**values)
    optimizer.check()
  return optimizer


def _decay(config: Config) -> RateDecay:
  kind = _load('lr_schedule', config.lr_schedule)
  decay: RateDecay = kind(config.steps, config.lr_warmup, config.lr_final)
  with _naming():
    decay.check()
  if kind is Constant:  # which is the same in a longer run
    decay = decay.replace(steps=config.lr_warmup + 1)
  return decay


# Options that are static fields of schedules, by the fields' names.
_OF_SCHEDULES = (
  'd_steps',
  'g_steps',
  'reuse_noise',
  'reuse_real',
  'unroll_steps',
)


def _schedule(config: Config, objects: Objects) -> Schedule:
  numbers = (*_OF_SCHEDULES, *_options_of('schedule'))
  if 'schedule' in objects:
    _refuse_beside(config, 'schedule', numbers)
    return as_component('schedule', objects['schedule'], Schedule)
  kind = _component('schedule', config.schedule, Schedule)
  if isinstance(kind, Schedule):
    _refuse_beside(config, 'schedule', numbers)
    return kind
  own = {field.name for field in dataclasses.fields(kind)}
  values = _numbers(config, 'schedule', kind)
  for name in _OF_SCHEDULES:
    value = getattr(config, name)
    if name in own:
      values[name] = value
    elif value != FIELDS[name].default:
      raise _no_effect(config, name, 'schedule', name)
  with _naming('schedule'):
    schedule: Schedule = kind(**values)
    schedule.check()
  return schedule


def _ema(config: Config) -> Ema | None:
  kimg = config.ema_halflife_kimg
  return Ema(kimg) if kimg else None


@functools.cache
def paths() -> dict[str, str]:
  """Options by the path of the hyper-parameter that they set."""
  return {
    f.metadata['path']: n for n, f in FIELDS.items() if f.metadata['path']
  }


__all__ = [
  'DataSpec',
  'OBJECTS',
  'build_networks',
  'build_trainer',
  'components',
  'hyper',
  'make_trainer',
  'paths',
  'split_options',
]
