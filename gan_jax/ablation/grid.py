"""What an ablation varies: from words to cells, members and programs.

`objective=minimax,hinge` is an axis; the cross product of the axes are the
cells, each a configuration; a cell and a seed are a member; members that differ
in traced numbers only are one compiled program. Nothing here needs JAX.
"""

import dataclasses
import itertools
import math
import re
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from gan_jax.config import schema as config_lib
from gan_jax.config import validate
from gan_jax.config.schema import FIELDS, Config, ConfigError

_RANGE = re.compile(r'(uniform|loguniform)\((.*)\)')
_USAGE = 'write --vary=FLAG=VALUE,VALUE, for example --vary=lr_d=1e-4,2e-4'
# Digits of a number that was drawn: enough to search, few enough to read.
_DIGITS = 5


class Axis(NamedTuple):
  """Flags that are varied together, and the values that they take in turn."""

  flags: tuple[str, ...]
  values: tuple[tuple[Any, ...], ...]

  @property
  def columns(self) -> dict[str, list[Any]]:
    """Values by what they are told under: one name for flags always equal."""
    if all(len(set(map(str, values))) == 1 for values in self.values):
      return {self.name: [values[0] for values in self.values]}
    return {
      flag: [values[i] for values in self.values]
      for i, flag in enumerate(self.flags)
    }

  @property
  def name(self) -> str:
    """As on the command line: `lr_g+lr_d`."""
    return '+'.join(self.flags)


class Cell(NamedTuple):
  """One configuration of an ablation, seeds apart.

  Attributes:
    label: what a person calls it.
    values: of flags.
    told: the same as tables have it, `lr_g+lr_d` under one name.
  """

  label: str
  values: dict[str, Any]
  told: dict[str, Any]


class Member(NamedTuple):
  """One run: a cell by number, a seed, and the configuration they make."""

  cell: int
  seed: int
  config: Config


def static(config: Config) -> Config:
  """What of a configuration is compiled: the same for one program's members.

  Hyper-parameters are at their defaults, or 1 where a part of the step is there
  that could be absent; the weights of regularizers, the seed and the folder are
  left out.
  """
  changes: dict[str, Any] = {}
  for name in config_lib.traced():
    none = FIELDS[name].metadata['none']
    given = float(getattr(config, name) != none)
    changes[name] = FIELDS[name].default if none is None else given
  terms = [
    f'{p.name}@{p.place}' for p in validate.penalties(config.regularizer)
  ]
  return dataclasses.replace(
    config, **changes, regularizer=','.join(terms), seed=0, workdir=''
  )


def _flag(word: str, name: str) -> None:
  """Refuses a name that is no flag, or none to vary."""
  if name not in FIELDS:
    free = {n for n, f in FIELDS.items() if f.metadata['free']}
    known = [n for n in FIELDS if n not in free | {'seed'}]
    raise ConfigError(
      f'--vary={word}: --{name} is no flag; {validate.nearest(name, known)}'
    )
  if name == 'seed':
    raise ConfigError(
      f'--vary={word}: seeds are varied by --seeds; give every cell the same'
    )
  if FIELDS[name].metadata['free']:
    raise ConfigError(
      f'--vary={word}: --{name} says where or how often, and nothing that a'
      ' score depends on; set it for all runs'
    )


def _value(word: str, name: str, text: str) -> Any:
  """A value of a flag, from its text."""
  kind: Any = type(FIELDS[name].default)
  if not text and kind is not str:
    raise ConfigError(
      f'--vary={word}: a value of --{name} is missing; {_USAGE}'
    )
  try:
    if kind is bool:
      value = {'true': True, '1': True, 'false': False, '0': False}[
        text.lower()
      ]
    else:
      value = kind(text)
  except (KeyError, ValueError) as error:
    names = {bool: 'true or false', int: 'a whole number', float: 'a number'}
    raise ConfigError(
      f'--vary={word}: --{name}={text}: use {names[kind]}'
    ) from error
  _in_bounds(word, name, value)
  return value


def _in_bounds(word: str, name: str, value: Any) -> None:
  found = validate.problems(FIELDS[name], value, config_lib.choices(name))
  if found:
    raise ConfigError('\n'.join(f'--vary={word}: {text}' for text in found))


def _drawn(word: str, name: str, text: str, seed: int) -> list[float] | None:
  """Values of a range, `loguniform(low,high,count)`; None if it is none."""
  found = _RANGE.fullmatch(text)
  if not found:
    return None
  kind, inside = found.groups()
  try:
    low, high, count = inside.split(',')
    a, b, n = float(low), float(high), int(count)
    fine = math.isfinite(a) and math.isfinite(b) and a < b and n > 0
    fine = fine and (kind == 'uniform' or a > 0)
  except ValueError:
    fine = False
  if not fine:
    raise ConfigError(
      f'--vary={word}: {text}: write {kind}(low,high,count), for example'
      f' {kind}(1e-5,1e-3,8)'
    )
  if type(FIELDS[name].default) is not float:
    raise ConfigError(
      f'--vary={word}: {text}: --{name} takes no fractions; write its values'
    )
  import numpy as np

  # By name and seed alone: another axis does not change what is drawn here.
  mark = zlib.crc32(f'{name} {text}'.encode())
  u = np.random.Generator(np.random.Philox(key=[seed, mark])).uniform(size=n)
  if kind == 'uniform':
    values = a + (b - a) * u
  else:
    values = np.exp(np.log(a) + (np.log(b) - np.log(a)) * u)
  numbers = [float(f'{x:.{_DIGITS}g}') for x in values]
  for x in numbers:
    _in_bounds(word, name, x)
  return numbers


def _split(word: str, text: str) -> list[str]:
  """Values: by `;` where there is one, so that they may hold commas."""
  if not text:
    raise ConfigError(f'--vary={word}: there is no value; {_USAGE}')
  return text.split(';' if ';' in text else ',')


def _together(word: str, flags: tuple[str, ...], text: str) -> list[Any]:
  """The values of one step along an axis: one for all flags, or one each."""
  parts = text.split('/') if len(flags) > 1 else [text]
  if len(parts) == 1:
    parts = parts * len(flags)
  if len(parts) != len(flags):
    raise ConfigError(
      f'--vary={word}: {text}: give one value for all of {"+".join(flags)}, or'
      f' {len(flags)} with / between them'
    )
  return parts


def axis(word: str, search_seed: int = 0) -> Axis:
  """An axis from its word.

  `FLAG=A,B` takes each value in turn; values that hold commas themselves are
  separated by semicolons. `FLAG+FLAG=A,B` sets both flags to the same,
  `FLAG+FLAG=A/C,B/D` each to its own. `FLAG=loguniform(LOW,HIGH,COUNT)` and
  `uniform` draw values.

  Raises:
    ConfigError: naming the flag, the value and the remedy.

  >>> axis('lr_g+lr_d=1e-4,2e-4').values
  ((0.0001, 0.0001), (0.0002, 0.0002))
  """
  _, equals, text = word.partition('=')
  flags = _flags(word)
  if not equals:
    raise ConfigError(f"--vary={word}: there is no '='; {_USAGE}")
  for name in flags:
    _flag(word, name)
  if len(set(flags)) < len(flags):
    raise ConfigError(f'--vary={word}: one flag is there twice')
  ranges = _ranges(word, flags, text, search_seed)
  if ranges is not None:
    values = ranges
  else:
    rows = [_together(word, flags, part) for part in _split(word, text)]
    values = [
      tuple(_value(word, *pair) for pair in zip(flags, row, strict=True))
      for row in rows
    ]
  for value in values if ranges is None else ():
    if values.count(value) > 1:
      raise ConfigError(
        f'--vary={word}: {"/".join(map(str, value))} is there twice'
      )
  return Axis(flags, tuple(values))


def _ranges(
  word: str, flags: tuple[str, ...], text: str, seed: int
) -> list[tuple[Any, ...]] | None:
  parts = _together(word, flags, text) if '(' in text else []
  drawn = [_drawn(word, f, p, seed) for f, p in zip(flags, parts, strict=False)]
  found = [x for x in drawn if x is not None]
  if not found:
    return None
  if '/' not in text:  # one draw for all of the flags
    found = [found[0]] * len(flags)
  if len(found) < len(flags) or len({len(x) for x in found}) > 1:
    raise ConfigError(
      f'--vary={word}: flags that are searched together all need a range, of'
      ' one count'
    )
  return list(zip(*found, strict=True))


def axes(words: Sequence[str], search_seed: int = 0) -> list[Axis]:
  """The axes of an ablation.

  Raises:
    ConfigError: as `axis`, and for a flag that is varied twice.
  """
  found = [axis(word, search_seed) for word in words]
  names = [name for a in found for name in a.flags]
  for name in names:
    if names.count(name) > 1:
      raise ConfigError(f'--vary={name}: is varied twice; join the values')
  return found


def suited(words: Sequence[str], base: Config) -> tuple[str, ...]:
  """Words in which datasets bring their networks, if that of `base` won't do.

  Args:
    words: of the axes.
    base: whose network was not named.

  Raises:
    ConfigError: if a name has a slash, which cannot be told from others.

  >>> suited(['dataset=ring,digits'], Config())
  ('dataset+network=ring/mlp,digits/dcgan',)
  """
  if any('network' in _flags(word) for word in words):
    return tuple(words)
  return tuple(_suited(word, base) for word in words)


def _flags(word: str) -> tuple[str, ...]:
  names = word.partition('=')[0].split('+')
  return tuple(name.removeprefix('--') for name in names)


def _suited(word: str, base: Config) -> str:
  names, _, text = word.partition('=')
  flags = _flags(word)
  if 'dataset' not in flags or not text:
    return word
  at, rows = flags.index('dataset'), _split(word, text)
  sets = [_together(word, flags, row)[at] for row in rows]
  networks = [validate.suitable_network(name) for name in sets]
  if all(network == base.network for network in networks):
    return word
  for name in sets:
    if '/' in name:
      raise ConfigError(
        f'--vary={word}: {name} and other data take other networks; name one'
        ' with --network'
      )
  rows = [f'{row}/{net}' for row, net in zip(rows, networks, strict=True)]
  return f'{names}+network={(";" if ";" in text else ",").join(rows)}'


def cells(found: Sequence[Axis]) -> list[Cell]:
  """The cross product, the last axis fastest; one cell without any axis."""
  made = []
  for point in itertools.product(*(range(len(a.values)) for a in found)):
    values: dict[str, Any] = {}
    told: dict[str, Any] = {}
    for a, i in zip(found, point, strict=True):
      values |= dict(zip(a.flags, a.values[i], strict=True))
      told |= {name: column[i] for name, column in a.columns.items()}
    label = ', '.join(f'{k}={text_of(v)}' for k, v in told.items())
    made.append(Cell(label or 'base', values, told))
  return made


def text_of(value: Any) -> str:
  """A value as flags have it."""
  return str(value).lower() if isinstance(value, bool) else str(value)


def members(
  base: Config, grid: Sequence[Cell], seeds: Sequence[int]
) -> list[Member]:
  """All runs, by cell and then by seed.

  Raises:
    ConfigError: naming the cells whose flags are of no use together.
  """
  made, problems = [], []
  for i, cell in enumerate(grid):
    config = dataclasses.replace(base, **cell.values)
    try:
      config.validate()
    except ConfigError as error:
      problems.append(f'cell {i} ({cell.label}): {error}')
      continue
    for seed in seeds:
      made.append(Member(i, seed, dataclasses.replace(config, seed=seed)))
  if problems:
    raise ConfigError('\n'.join(problems))
  return made


def programs(runs: Sequence[Member]) -> list[list[Member]]:
  """Members by what is compiled, in the order in which each first comes."""
  found: dict[Config, list[Member]] = {}
  for run in runs:
    found.setdefault(static(run.config), []).append(run)
  return [*found.values()]
