"""What the runs of one cell are made of, seeds apart.

From the command line a configuration says all of it; from Python components may
stand in the place of names, or a trainer in the place of a game's options.
Imports JAX only where there is such an object.
"""

import dataclasses
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

from gan_jax.config import schema
from gan_jax.config.schema import FIELDS, Config
from gan_jax.runtime.errors import ArgumentError

if TYPE_CHECKING:
  from gan_jax.config.resolve import DataSpec
  from gan_jax.game.trainer import Trainer
  from gan_jax.networks.base import Networks


@dataclasses.dataclass(frozen=True)
class CellSpec:
  """Everything that the runs of a cell share.

  Attributes:
    config: its options; the seed is not read.
    objects: options that are objects, in the place of names.
    trainer: in the place of the one that the options describe.
    hyper: hyper-parameters by path, in the place of those.
  """

  config: Config
  objects: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  trainer: 'Trainer | None' = None
  hyper: Mapping[str, float] = dataclasses.field(default_factory=dict)

  @property
  def named(self) -> bool:
    """Whether names and numbers say all of it."""
    return not set(self.objects) - {'metrics'} and self.trainer is None

  def program_key(self) -> Hashable:
    """Equal for cells whose runs are one compiled program."""
    compiled = schema.static(self.config)
    if self.named:
      return compiled
    import jax

    structure = jax.tree.structure(self._components())
    return compiled, self.objects.get('network'), structure

  def _components(self) -> Any:
    from gan_jax.config import resolve

    if self.trainer is not None:
      return self.trainer
    return resolve.components(self.config, self.objects)

  def hyperparameters(self) -> dict[str, float]:
    """All hyper-parameters by path.

    Raises:
      ArgumentError: for one of `hyper` that the components do not have.
    """
    from gan_jax.game.component import hyperparameters

    own = {k: float(v) for k, v in hyperparameters(self._components()).items()}
    for path, value in self.hyper.items():
      if path not in own:
        raise ArgumentError(
          path, value, f'no such hyper-parameter; there are {", ".join(own)}'
        )
    return own | dict(self.hyper)

  def build_trainer(self, facts: 'DataSpec') -> 'Trainer':
    """The trainer of these runs.

    Raises:
      ArgumentError: naming what is of no use.
    """
    from gan_jax.config import resolve

    trainer = self.trainer
    if trainer is None:
      trainer = resolve.build_trainer(self.config, facts, self.objects)
    return trainer.at(self.hyperparameters())

  def networks(self, facts: 'DataSpec') -> 'Networks':
    """G and D of these runs."""
    from gan_jax.config import resolve

    own: Networks | None = self.objects.get('network')
    if self.trainer is not None:
      own = self.trainer.game.networks
    if own is None:
      own = resolve.build_networks(self.config, facts)
    networks: Networks = resolve.sample_classes(own, self.config, facts)
    return networks

  @property
  def has_average(self) -> bool:
    """Whether an average of G is kept."""
    if self.trainer is not None:
      return self.trainer.ema is not None
    return self.config.ema_halflife_kimg > 0


# Cells from Python.

# Arguments of `Game` and `Trainer` that can be varied, with the option that
# takes names of them.
_OF_GAMES = {
  'objective': 'objective',
  'regularizers': 'regularizer',
  'augment': 'diffaugment',
  'instance_noise': '',
  'packing': '',
  'networks': '',
}
_OF_TRAINERS = {
  'optimizer_g': 'optimizer_g',
  'optimizer_d': 'optimizer_d',
  'schedule': 'schedule',
  'ema': '',
}
PARTS = (*_OF_GAMES, *_OF_TRAINERS)


def vary_spec(base: CellSpec, values: Mapping[str, Any]) -> CellSpec:
  """The spec with some values in the place of its own.

  Args:
    base: what all cells share.
    values: by option, by component of the trainer that was handed in, or by
      path of a hyper-parameter.

  Raises:
    ArgumentError: naming the key that is of no use.
  """
  options, components = {}, {}
  hyper = dict(base.hyper)
  for key, value in values.items():
    path = FIELDS[key].metadata['path'] if key in FIELDS else ''
    if '.' in key:
      hyper[key] = _to_number(key, value)
    elif base.trainer is None:
      options[key] = value
    elif key in PARTS:
      components[key] = value
    elif path:
      hyper[path] = _to_number(key, value)
    elif key in FIELDS and not is_of_trainer(FIELDS[key]):
      options[key] = value
    else:
      keys = [*PARTS, *base.hyperparameters()]
      raise ArgumentError(
        'vary', key, f'a trainer has no such part; there are {", ".join(keys)}'
      )
  config, objects = _change_options(base, options)
  trainer = base.trainer
  if trainer is not None and components:
    trainer = _replace_components(trainer, components)
  return CellSpec(config, objects, trainer, hyper)


def is_of_trainer(field: dataclasses.Field[Any]) -> bool:
  """Whether an option says how a trainer is made."""
  return field.metadata['group'] in ('The game', 'Networks', 'Optimizers')


def _to_number(key: str, value: Any) -> float:
  try:
    return float(value)
  except (TypeError, ValueError) as error:
    raise ArgumentError(key, value, 'use a number') from error


def _change_options(
  base: CellSpec, options: Mapping[str, Any]
) -> tuple[Config, Mapping[str, Any]]:
  if not options:
    return base.config, base.objects
  from gan_jax.config import resolve

  config_options = dataclasses.asdict(base.config)
  objects = {k: x for k, x in base.objects.items() if k not in options}
  return resolve.split_options({**config_options, **objects, **options})


def _replace_components(
  trainer: 'Trainer', parts: Mapping[str, Any]
) -> 'Trainer':
  from gan_jax.game.game import Game
  from gan_jax.game.trainer import Trainer

  def choose(owner: Any, names: Mapping[str, str]) -> dict[str, Any]:
    return {
      name: _find_component(name, option, parts[name])
      if name in parts
      else getattr(owner, name)
      for name, option in names.items()
    }

  own = choose(trainer.game, _OF_GAMES)
  for name in ('regularizers', 'augment'):
    if isinstance(own[name], Mapping):
      own[name] = dict(own[name])
  game = Game(**own)
  game.check()
  replaced = Trainer(game, **choose(trainer, _OF_TRAINERS))
  replaced.check()
  return replaced


def _find_component(name: str, option: str, value: Any) -> Any:
  """A component that may be given by its name."""
  if not isinstance(value, str):
    return value
  if not option:
    raise ArgumentError(name, value, 'has no names; give an object')
  from gan_jax.config import resolve

  config, objects = resolve.split_options({option: value})
  return resolve.components(config, objects)[name]
