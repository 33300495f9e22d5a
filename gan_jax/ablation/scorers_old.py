"""Who scores the runs of an ablation: an evaluator for each kind of generator.

Names of scores are those of `metrics.jsonl` (`scores.shown`); what they depend
on besides the generators is the protocol, of which cells may differ in parts.
"""

import statistics as stdlib_statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from gan_jax import data
from gan_jax.ablation.grid import Cell, text_of
from gan_jax.ablation.plan import Plan
from gan_jax.config.schema import Config, ConfigError
from gan_jax.evaluation import scorer
from gan_jax.evaluation.evaluator import BATCH, KNOWN, Evaluator
from gan_jax.evaluation.scores import shown
from gan_jax.runtime import sharding
from gan_jax.training import setup

# What a generator and its scores depend on; the rest is of no interest to the
# evaluator of a program.
_SEEN = (
  'dataset',
  'network',
  'width',
  'depth',
  'latent_dim',
  'latent',
  'norm_g',
  'norm_d',
  'packing',
  'conditioning',
  'precision',
  'image_size',
  'channels',
)
_BATCH = 2048  # generated at a time, of a density


def _sole(values: Sequence[Any]) -> bool:
  return all(value == values[0] for value in values)


def _varying(cells: Sequence[Cell], values: Sequence[Any]) -> dict[str, Any]:
  """What differs between cells, by the flag that it hangs on if one does.

  >>> cells = [Cell('a=1', {}, {'a': 1}), Cell('a=2', {}, {'a': 2})]
  >>> _varying(cells, ['x', 'y'])
  {'varies, a=1': 'x', 'varies, a=2': 'y'}
  """
  for flag in cells[0].told:
    found: dict[str, list[Any]] = {}
    for cell, value in zip(cells, values, strict=True):
      name = f'varies, {flag}={text_of(cell.told[flag])}'
      found.setdefault(name, []).append(value)
    if all(map(_sole, found.values())):
      return {name: each[0] for name, each in found.items()}
  return {
    f'varies, {cell.label}': value
    for cell, value in zip(cells, values, strict=True)
  }


class Judges:
  """Evaluators, one for each kind of generator."""

  def __init__(self, plan: Plan) -> None:
    """Makes none yet."""
    self._plan = plan
    self._sets: dict[Any, data.Dataset] = {}
    self._made: dict[Any, Evaluator] = {}

  def dataset(self, config: Config) -> data.Dataset:
    """Loaded once."""
    key = (config.dataset, config.image_size, config.channels)
    if key not in self._sets:
      self._sets[key] = setup.load_dataset(config)
    return self._sets[key]

  def of(self, config: Config) -> Evaluator:
    """The evaluator of a configuration's generators.

    Raises:
      ConfigError: if its metrics have nothing to see, naming the flag.
    """
    key = tuple(getattr(config, name) for name in _SEEN)
    if key not in self._made:
      own = self.dataset(config)
      small = isinstance(own, data.Density)
      request, against, known = scorer.of_run(
        config, scorer.Request(samples=config.eval_samples), own
      )
      self._made[key] = scorer.make_evaluator(
        request,
        against,
        setup.make_networks(config, own),
        sharding.make_mesh(1),
        batch=_BATCH if small else BATCH,
        **known,
      )
    return self._made[key]

  def _cells(self) -> list[Config]:
    """Of each cell a configuration, in their order."""
    found = {
      member.cell: member.config
      for program in self._plan.programs
      for member in program
    }
    return [found[i] for i in range(len(self._plan.cells))]

  def check(self) -> None:
    """Refuses cells that no program could be made of, before any is run.

    Raises:
      ConfigError, DataError, NetworkError: naming the cell.
    """
    for i, config in enumerate(self._cells()):
      try:
        setup.make_plan(config, self.dataset(config))
      except ValueError as error:
        if not hasattr(error, 'exit_code'):
          raise
        label = self._plan.cells[i].label
        raise ConfigError(f'cell {i} ({label}): {error}') from error
    for program in self._plan.programs:
      self.of(program[0].config)

  def _public(self, judge: Evaluator) -> dict[str, tuple[str, str]]:
    """By the name of each score: that in public, and which end is better."""
    features = judge.protocol['features']
    found = {}
    for key, names in judge.names.items():
      metric = KNOWN[key]
      for name in names:
        public = shown(name, '' if metric.sees == 'images' else features)
        found[name] = public, metric.direction(name) or ''
    return found

  def declared(self) -> dict[str, str]:
    """Every score's public name, and which values of it are better.

    Raises:
      ConfigError: if cells have no score in common to be compared by.
    """
    judges = map(self.of, self._cells())
    each = [dict(self._public(judge).values()) for judge in judges]
    for i, names in enumerate(each):
      if next(iter(names)) not in each[0]:
        raise ConfigError(
          f'--features={self._plan.base.features}: cell 0 would be ranked by'
          f' {next(iter(each[0]))} and cell {i} by {next(iter(names))}, which'
          ' cannot be compared; use features that all cells share'
        )
    return {name: better for names in each for name, better in names.items()}

  def protocol(self) -> dict[str, Any]:
    """What scores depend on besides the generators; what varies, by cell."""
    configs = self._cells()
    each = [
      {
        **self.of(config).protocol,
        'evaluation_seeds': config.eval_seeds,
        'ema': config.ema_halflife_kimg > 0,
      }
      for config in configs
    ]
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for told in each for name in told):
      values = [told.get(name, '') for told in each]
      same = _sole(values)
      found[name] = values[0] if same else _varying(self._plan.cells, values)
    return found

  def identity(self, config: Config) -> str:
    """Hash of what a configuration's scores depend on besides generators."""
    protocol = self.of(config).protocol | {'seeds': config.eval_seeds}
    return scorer.identity(protocol)

  def scores(self, config: Config, params: Any, stats: Any) -> dict[str, Any]:
    """Means over evaluation seeds, and deviations where there are several.

    Returns:
      `scores` and `evaluation_std` by public name; `nan`, why some are, if so.
    """
    judge = self.of(config)
    found: list[dict[str, float]] = []
    why: dict[str, str] = {}
    for seed in range(config.eval_seeds):
      found.append(judge.score(params, stats, seed=seed))
      why |= judge.unscored
    public = self._public(judge)
    values = {public[k][0]: [f[k] for f in found] for k in found[0]}
    mean = {k: float(np.mean(x)) for k, x in values.items()}
    several = len(found) > 1
    spread = {
      k: stdlib_statistics.stdev(x) for k, x in values.items() if several
    }
    told = {'scores': mean, 'evaluation_std': spread}
    return told | ({'nan': why} if why else {})
