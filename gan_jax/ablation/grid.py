"""The grid of an ablation: its axes, and the cells that they span.

`objective=minimax,hinge` is an axis; the cross product of the axes are the
cells. Nothing here needs JAX.
"""

import contextlib
import itertools
import math
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from gan_jax.config import schema as config_lib
from gan_jax.config import validate
from gan_jax.config.parsing import parse_float, parse_int
from gan_jax.config.schema import FIELDS, Config
from gan_jax.runtime.errors import ArgumentError
from gan_jax.runtime.names import suggest

_RANGE = re.compile(r'(uniform|loguniform)\((.*)\)')
_USAGE = 'write `vary=NAME=VALUE,VALUE`, for example `vary=lr_d=1e-4,2e-4`'
# Digits of a number that was drawn: enough to search, few enough to read.
_DIGITS = 5
MOST_VALUES = 10_000  # that a range may draw


class Axis(NamedTuple):
  """Options that are varied together.

  Attributes:
    options: their names.
    values: of all of them, a tuple for each point of the axis.
    labels: what stands for values that are objects; empty where none are.
  """

  options: tuple[str, ...]
  values: tuple[tuple[Any, ...], ...]
  labels: tuple[tuple[Any, ...], ...] = ()

  @property
  def columns(self) -> dict[str, list[Any]]:
    """Settings by table column; options that are always equal share one."""
    rows = self.labels or self.values
    if all(len(set(map(str, row))) == 1 for row in rows):
      return {self.name: [row[0] for row in rows]}
    return {
      option: [row[i] for row in rows] for i, option in enumerate(self.options)
    }

  @property
  def name(self) -> str:
    """As in the word of the axis: `lr_g+lr_d`."""
    return '+'.join(self.options)


class Cell(NamedTuple):
  """One configuration of an ablation, seeds apart.

  Attributes:
    label: its settings as text, `objective=hinge, lr_d=0.0001`.
    values: by option.
    settings: by table column, as tables show them.
  """

  label: str
  values: dict[str, Any]
  settings: dict[str, Any]


def format_value(value: Any) -> str:
  """A value as flags and tables have it."""
  return str(value).lower() if isinstance(value, bool) else str(value)


def disarm(text: str) -> str:
  """A text that no spreadsheet takes for a formula; a number as it is.

  >>> disarm('-0.5'), disarm('hinge')
  ('-0.5', 'hinge')
  >>> print(disarm('=HYPERLINK("http://x")'))
  '=HYPERLINK("http://x")
  """
  if not text.startswith(('=', '+', '-', '@', '\t', '\r')):
    return text
  with contextlib.suppress(ValueError):
    float(text)
    return text
  return f"'{text}"


# Axes from words.


def parse_axes(words: Sequence[str], search_seed: int = 0) -> list[Axis]:
  """The axes of an ablation.

  Raises:
    ArgumentError: as `parse_axis`, and for an option that is varied twice.
  """
  axes = [parse_axis(word, search_seed) for word in words]
  check_once(axes)
  return axes


def check_once(axes: Sequence[Axis]) -> None:
  """Raises for an option that is varied twice.

  Raises:
    ArgumentError: naming it.
  """
  names = [name for axis in axes for name in axis.options]
  for name in names:
    if names.count(name) > 1:
      raise ArgumentError('vary', name, 'is varied twice; join the values')


def parse_axis(word: str, search_seed: int = 0) -> Axis:
  """An axis from its word.

  `NAME=A,B` has two values of one option; values that hold commas themselves
  are separated by semicolons. `NAME+NAME=A,B` sets both options to the same,
  `NAME+NAME=A/C,B/D` each to its own. `NAME=loguniform(LOW,HIGH,COUNT)` and
  `uniform` draw values.

  Args:
    word: of the axis.
    search_seed: of the draws.

  Raises:
    ArgumentError: naming the word, what is wrong with it and the remedy.

  >>> parse_axis('lr_g+lr_d=1e-4,2e-4').values
  ((0.0001, 0.0001), (0.0002, 0.0002))
  """
  _, equals, text = word.partition('=')
  options = _parse_names(word)
  if not equals:
    raise ArgumentError('vary', word, f"there is no '='; {_USAGE}")
  for name in options:
    check_option(word, name)
  if len(set(options)) < len(options):
    raise ArgumentError('vary', word, 'one option is there twice')
  ranges = _draw_together(word, options, text, search_seed)
  if ranges is not None:
    return Axis(options, tuple(ranges))
  rows = [_split_row(word, options, part) for part in _split_values(word, text)]
  values = [
    tuple(_parse_value(word, *pair) for pair in zip(options, row, strict=True))
    for row in rows
  ]
  for value in values:
    if values.count(value) > 1:
      twice = '/'.join(map(str, value))
      raise ArgumentError('vary', word, f'{twice} is there twice')
  return Axis(options, tuple(values))


def _parse_names(word: str) -> tuple[str, ...]:
  names = word.partition('=')[0].split('+')
  return tuple(name.removeprefix('--') for name in names)


def check_option(word: str, name: str) -> None:
  """Raises for a name that is no option, or none to vary.

  Args:
    word: of the axis, for messages.
    name: of the option.

  Raises:
    ArgumentError: saying what can be varied.
  """
  if name not in FIELDS:
    varied = [
      n for n, f in FIELDS.items() if not f.metadata['free'] and n != 'seed'
    ]
    raise ArgumentError(
      'vary',
      word,
      f'there is no option `{name}`; {suggest(name, varied)}',
    )
  if name == 'seed':
    raise ArgumentError(
      'vary', word, 'seeds are varied by `seeds`; every cell has the same'
    )
  if FIELDS[name].metadata['free']:
    raise ArgumentError(
      'vary',
      word,
      f'no score depends on `{name}`, which says where or how often; set it'
      ' for all runs',
    )


def _split_values(word: str, text: str) -> list[str]:
  """Values: by `;` where there is one, so that they may hold commas."""
  if not text:
    raise ArgumentError('vary', word, f'there is no value; {_USAGE}')
  return text.split(';' if ';' in text else ',')


def _split_row(word: str, options: tuple[str, ...], text: str) -> list[str]:
  """The values at one point of an axis: one for all options, or one each."""
  parts = text.split('/') if len(options) > 1 else [text]
  if len(parts) == 1:
    parts = parts * len(options)
  if len(parts) != len(options):
    raise ArgumentError(
      'vary',
      word,
      f'{text}: give one value for all of {"+".join(options)}, or'
      f' {len(options)} with / between them',
    )
  return parts


def _parse_value(word: str, name: str, text: str) -> Any:
  """A value of an option, from its text."""
  kind: Any = type(FIELDS[name].default)
  if not text and kind is not str:
    raise ArgumentError(
      'vary', word, f'a value of `{name}` is missing; {_USAGE}'
    )
  value: Any
  try:
    if kind is bool:
      words = {'true': True, '1': True, 'false': False, '0': False}
      value = words[text.lower()]
    elif kind is str:
      value = text
    else:
      value = (parse_int if kind is int else parse_float)(text)
  except (KeyError, ValueError) as error:
    kinds = {bool: 'true or false', int: 'a whole number', float: 'a number'}
    raise ArgumentError(
      'vary', word, f'`{name}={text}`: use {kinds[kind]}'
    ) from error
  _check_bounds(word, name, value)
  return value


def _check_bounds(word: str, name: str, value: Any) -> None:
  problems = validate.problems(FIELDS[name], value, config_lib.choices(name))
  if problems:
    raise ArgumentError('vary', word, '; '.join(map(str, problems)))


def _draw_together(
  word: str, options: tuple[str, ...], text: str, seed: int
) -> list[tuple[Any, ...]] | None:
  """Values of ranges, a tuple a point; None if the text has none."""
  parts = _split_row(word, options, text) if '(' in text else []
  draws = [
    _draw(word, f, p, seed) for f, p in zip(options, parts, strict=False)
  ]
  columns = [draw for draw in draws if draw is not None]
  if not columns:
    return None
  if '/' not in text:  # one draw for all of the options
    columns = [columns[0]] * len(options)
  if len(columns) < len(options) or len({len(x) for x in columns}) > 1:
    raise ArgumentError(
      'vary',
      word,
      'options that are searched together all need a range, of one count',
    )
  return list(zip(*columns, strict=True))


def _draw(word: str, name: str, text: str, seed: int) -> list[float] | None:
  """Values of a range, `loguniform(low,high,count)`; None if it is none."""
  match = _RANGE.fullmatch(text)
  if not match:
    return None
  kind, inside = match.groups()
  try:
    a, b, count = inside.split(',')
    low, high = parse_float(a), parse_float(b)
    n = parse_int(count)
    valid = math.isfinite(low) and math.isfinite(high) and low < high and n > 0
    valid = valid and (kind == 'uniform' or low > 0) and high - low < math.inf
  except ValueError:
    valid = False
  if not valid:
    raise ArgumentError(
      'vary',
      word,
      f'{text}: write {kind}(low,high,count), for example {kind}(1e-5,1e-3,8)',
    )
  if n > MOST_VALUES:
    raise ArgumentError(
      'vary', word, f'{text}: draw {MOST_VALUES:,} values at the most'
    )
  if type(FIELDS[name].default) is not float:
    raise ArgumentError(
      'vary', word, f'{text}: `{name}` has no fractions; write its values'
    )
  import numpy as np

  # By name and seed alone: another axis does not change what is drawn here.
  mark = zlib.crc32(f'{name} {text}'.encode())
  u = np.random.Generator(np.random.Philox(key=[seed, mark])).uniform(size=n)
  if kind == 'uniform':
    values = low + (high - low) * u
  else:
    values = np.exp(np.log(low) + (np.log(high) - np.log(low)) * u)
  numbers = [float(f'{x:.{_DIGITS}g}') for x in values]
  for x in numbers:
    _check_bounds(word, name, x)
  return numbers


@contextlib.contextmanager
def pointing_to_vary() -> Iterator[None]:
  """Values with commas, where one is taken, are meant to be compared.

  Raises:
    ConfigError: with the words that compare them.
  """
  try:
    yield
  except config_lib.ConfigError as error:
    several = [
      f'`vary={fault.argument}={fault.value}`'
      for fault in error.faults
      if ',' in str(fault.value) and fault.argument in FIELDS
    ]
    if not several:
      raise
    hint = f'to compare several values, use {" ".join(several)}'
    raise config_lib.ConfigError(*error.faults, hint) from error


def add_networks(words: Sequence[str], base: Config) -> tuple[str, ...]:
  """The words, with a network for each dataset where that of `base` is unfit.

  Args:
    words: of the axes.
    base: whose network was not named.

  Raises:
    ArgumentError: if a name has a slash, which cannot be told from others.

  >>> add_networks(['dataset=ring,digits'], Config())
  ('dataset+network=ring/mlp,digits/dcgan',)
  """
  if any('network' in _parse_names(word) for word in words):
    return tuple(words)
  return tuple(_add_network(word, base) for word in words)


def _add_network(word: str, base: Config) -> str:
  names, _, text = word.partition('=')
  options = _parse_names(word)
  if 'dataset' not in options or not text:
    return word
  column, rows = options.index('dataset'), _split_values(word, text)
  datasets = [_split_row(word, options, row)[column] for row in rows]
  networks = [validate.suitable_network(name) for name in datasets]
  if all(network == base.network for network in networks):
    return word
  for name in datasets:
    if '/' in name:
      raise ArgumentError(
        'vary',
        word,
        f'{name} and other data need different networks; name one with'
        ' `network`',
      )
  rows = [f'{row}/{net}' for row, net in zip(rows, networks, strict=True)]
  return f'{names}+network={(";" if ";" in text else ",").join(rows)}'


def make_cells(axes: Sequence[Axis]) -> list[Cell]:
  """The cross product, the last axis fastest; one cell without any axis."""
  cells = []
  for point in itertools.product(*(range(len(a.values)) for a in axes)):
    values: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for axis, i in zip(axes, point, strict=True):
      values |= dict(zip(axis.options, axis.values[i], strict=True))
      settings |= {name: column[i] for name, column in axis.columns.items()}
    label = ', '.join(f'{k}={format_value(v)}' for k, v in settings.items())
    cells.append(Cell(label or 'base', values, settings))
  return cells
