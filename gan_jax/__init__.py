"""gan_jax: generative adversarial networks as a two-player game, in JAX.

A generator and a discriminator trained alternately, as Goodfellow et al.
(2014, arXiv:1406.2661) posed them.

    import gan_jax as gj

    run = gj.train('runs/mine', data=images, objective='hinge', steps=5000)
    samples = gj.open('runs/mine').sample(64, seed=0)

Importing the package imports nothing heavy: what is named here is imported when
it is first asked for, so that commands answer `--help` without loading JAX.
"""

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

__version__ = '0.1.0'

# Public names, and where each is defined.
_OBJECTS = {
  'Ema': 'gan_jax.game.trainer:Ema',
  'Game': 'gan_jax.game.game:Game',
  'InstanceNoise': 'gan_jax.game.game:InstanceNoise',
  'Metric': 'gan_jax.metrics:Metric',
  'Objective': 'gan_jax.game.objectives:Objective',
  'Optimizer': 'gan_jax.game.optimizers:Optimizer',
  'Player': 'gan_jax.game.state:Player',
  'Population': 'gan_jax.game.population:Population',
  'Regularizer': 'gan_jax.game.regularizers:Regularizer',
  'Run': 'gan_jax.training.restore:Run',
  'Schedule': 'gan_jax.game.schedules:Schedule',
  'State': 'gan_jax.game.state:State',
  'Trainer': 'gan_jax.game.trainer:Trainer',
  'ablate': 'gan_jax.ablation:ablate',
  'evaluate': 'gan_jax.evaluation.scorer:evaluate',
  'make_trainer': 'gan_jax.config.resolve:make_trainer',
  'open': 'gan_jax.training.restore:open_run',
  'population': 'gan_jax.game.population:population',
  'report': 'gan_jax.ablation.report:report',
  'static': 'gan_jax.game.component:static',
  'stream': 'gan_jax.game.streams:stream',
  'train': 'gan_jax.training.train:train',
  # Errors.
  'ArgumentError': 'gan_jax.runtime.errors:ArgumentError',
  'CheckpointError': 'gan_jax.runtime.errors:CheckpointError',
  'DataError': 'gan_jax.runtime.errors:DataError',
  'Error': 'gan_jax.runtime.errors:Error',
  'IdentityError': 'gan_jax.runtime.errors:IdentityError',
  'NetworksNeeded': 'gan_jax.runtime.errors:NetworksNeeded',
}
_MODULES = {
  'augment': 'gan_jax.game.augment',
  'data': 'gan_jax.data',
  'metrics': 'gan_jax.metrics',
  'networks': 'gan_jax.networks',
  'objectives': 'gan_jax.game.objectives',
  'optimizers': 'gan_jax.game.optimizers',
  'regularizers': 'gan_jax.game.regularizers',
  'schedules': 'gan_jax.game.schedules',
  'testing': 'gan_jax.testing',
}

__all__ = ['__version__', *_OBJECTS, *_MODULES]

if TYPE_CHECKING:
  from gan_jax import data as data
  from gan_jax import metrics as metrics
  from gan_jax import networks as networks
  from gan_jax import testing as testing
  from gan_jax.ablation.report import report as report
  from gan_jax.config.resolve import make_trainer as make_trainer
  from gan_jax.evaluation.scorer import evaluate as evaluate
  from gan_jax.game import augment as augment
  from gan_jax.game import objectives as objectives
  from gan_jax.game import optimizers as optimizers
  from gan_jax.game import regularizers as regularizers
  from gan_jax.game import schedules as schedules
  from gan_jax.game.component import static as static
  from gan_jax.game.game import Game as Game
  from gan_jax.game.game import InstanceNoise as InstanceNoise
  from gan_jax.game.objectives import Objective as Objective
  from gan_jax.game.optimizers import Optimizer as Optimizer
  from gan_jax.game.population import Population as Population
  from gan_jax.game.population import population as population
  from gan_jax.game.regularizers import Regularizer as Regularizer
  from gan_jax.game.schedules import Schedule as Schedule
  from gan_jax.game.state import Player as Player
  from gan_jax.game.state import State as State
  from gan_jax.game.streams import stream as stream
  from gan_jax.game.trainer import Ema as Ema
  from gan_jax.game.trainer import Trainer as Trainer
  from gan_jax.metrics import Metric as Metric
  from gan_jax.runtime.errors import ArgumentError as ArgumentError
  from gan_jax.runtime.errors import CheckpointError as CheckpointError
  from gan_jax.runtime.errors import DataError as DataError
  from gan_jax.runtime.errors import Error as Error
  from gan_jax.runtime.errors import IdentityError as IdentityError
  from gan_jax.runtime.errors import NetworksNeeded as NetworksNeeded
  from gan_jax.training.restore import Run as Run
  from gan_jax.training.restore import open_run as open  # noqa: F401


class _Package(types.ModuleType):
  """This package: public names are imported when they are first asked for."""

  def __getattr__(self, name: str) -> Any:
    if name in _MODULES:
      value: Any = importlib.import_module(_MODULES[name])
    elif name in _OBJECTS:
      module, _, attribute = _OBJECTS[name].partition(':')
      value = getattr(importlib.import_module(module), attribute)
    else:
      raise AttributeError(
        f'module {self.__name__!r} has no attribute {name!r}'
      )
    self.__dict__[name] = value
    return value

  def __setattr__(self, name: str, value: Any) -> None:
    # Some commands are modules of the same names as functions: importing one
    # must not put it in the function's place.
    if not (isinstance(value, types.ModuleType) and name in _OBJECTS):
      super().__setattr__(name, value)

  def __dir__(self) -> list[str]:
    return sorted({*self.__dict__, *__all__})


sys.modules[__name__].__class__ = _Package
