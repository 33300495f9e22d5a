"""The text of a compiled program, as `Compiled.as_text()` prints it.

HLO after XLA has optimised and scheduled it: computations of instructions, each
with its shape, its operands and its attributes.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping

_ARRAY = re.compile(r'\b([a-z]+[0-9]*[a-z0-9]*)\[([0-9,]*)\]')
_NAME = re.compile(r'%([\w.\-]+)')
_INSTRUCTION = re.compile(r'^\s+(ROOT )?%?([\w.\-]+) = ')
_COMPUTATION = re.compile(r'^(ENTRY )?%?([\w.\-]+) .*\{$')
_PARENTHESIS = re.compile(r'[()]')
_CALLED = re.compile(
  r'(?:calls|body|to_apply|true_computation|false_computation)=%?([\w.\-]+)'
  r'|(?:branch_computations|called_computations)=\{([^}]*)\}'
)
_TRIPS = re.compile(r'known_trip_count"?[:=]\{"?n"?:"?(\d+)')
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_ODD_BYTES = {'pred': 1, 's4': 0.5, 'u4': 0.5, 'token': 0, 'opaque': 0}
COLLECTIVES = (
  'all-reduce',
  'all-gather',
  'reduce-scatter',
  'all-to-all',
  'ragged-all-to-all',
  'collective-permute',
  'collective-broadcast',
)


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a computation.

  Attributes:
    name: of it, without %.
    shape: type and shape as printed; of several results in parentheses.
    opcode: `fusion`, `dot` and so on.
    arguments: as printed, in their parentheses.
    rest: attributes, as printed.
    root: whether it is what its computation returns.
  """

  name: str
  shape: str
  opcode: str
  arguments: str
  rest: str
  root: bool

  @functools.cached_property
  def operands(self) -> tuple[str, ...]:
    """Names of its operands."""
    return tuple(_NAME.findall(self.arguments))

  @functools.cached_property
  def called(self) -> tuple[str, ...]:
    """Computations that it runs; the condition of a loop is left out."""
    names: list[str] = []
    for one, several in _CALLED.findall(self.rest):
      names += [one] if one else _NAME.findall(several)
    return tuple(names)

  @property
  def target(self) -> str:
    """Of a custom call, such as `__cudnn$convForward`; otherwise ''."""
    match = _TARGET.search(self.rest)
    return match[1] if match else ''

  @property
  def trips(self) -> int:
    """Turns of a loop; 0 where they are not known."""
    match = _TRIPS.search(self.rest)
    return int(match[1]) if match else 0

  @property
  def collective(self) -> str:
    """Which collective it begins; '' if none."""
    stem = self.opcode.removesuffix('-start')
    return stem if stem in COLLECTIVES else ''


Computation = Mapping[str, Instruction]


@dataclasses.dataclass(frozen=True)
class Module:
  """A compiled program.

  Attributes:
    computations: by name; instructions of each by name.
    entry: name of the one that is called.
  """

  computations: Mapping[str, Computation]
  entry: str

  def instructions(self) -> Iterator[Instruction]:
    """Of all computations."""
    for computation in self.computations.values():
      yield from computation.values()

  def find_step(self) -> tuple[str, int]:
    """The body of the loop of steps, and how often that loop is entered.

    The first loop whose turns are not known when it is compiled; those around
    it (of members one after another) turn a known number of times. A program
    without one is itself a step.
    """
    return self._find_loop(self.entry, 1) or (self.entry, 1)

  def _find_loop(self, name: str, times: int) -> tuple[str, int] | None:
    for one in self.computations[name].values():
      if one.opcode not in ('while', 'call', 'conditional'):
        continue
      if one.opcode == 'while' and not one.trips:
        return one.called[0], times
      for called in one.called:
        if found := self._find_loop(called, times * (one.trips or 1)):
          return found
    return None


def parse(text: str) -> Module:
  """Reads what `Compiled.as_text()` prints.

  Raises:
    ValueError: if it is no text of a module.
  """
  computations: dict[str, dict[str, Instruction]] = {}
  entry, now = '', dict[str, Instruction]()
  for line in text.splitlines():
    if line[:1] not in (' ', '}', ''):
      if header := _COMPUTATION.match(line):
        now = computations.setdefault(header[2], {})
        entry = header[2] if header[1] else entry
    elif one := _parse_line(line):
      now[one.name] = one
  if not entry:
    raise ValueError('no text of an HLO module: it has no ENTRY')
  return Module(computations, entry)


def _parse_line(line: str) -> Instruction | None:
  match = _INSTRUCTION.match(line)
  if match is None:
    return None
  start = match.end()
  end = _closing(line, start) if line[start] == '(' else line.find(' ', start)
  begin = line.find('(', end)
  if end < 0 or begin < 0:
    return None
  last = _closing(line, begin)
  return Instruction(
    name=match[2],
    shape=line[start:end],
    opcode=line[end:begin].strip(),
    arguments=line[begin:last],
    rest=line[last:],
    root=bool(match[1]),
  )


def _closing(text: str, start: int) -> int:
  """The place behind the parenthesis that closes the one at `start`."""
  depth = 0
  for match in _PARENTHESIS.finditer(text, start):
    depth += 1 if match[0] == '(' else -1
    if not depth:
      return match.end()
  return len(text)


# Shapes.


def arrays(shape: str) -> list[tuple[str, list[int]]]:
  """(dtype, dimensions) of each array of a shape.

  >>> arrays('(f32[8,2]{1,0:T(8,128)}, bf16[])')
  [('f32', [8, 2]), ('bf16', [])]
  """
  return [
    (dtype, [int(d) for d in dims.split(',') if d])
    for dtype, dims in _ARRAY.findall(shape)
  ]


def dtype_of(shape: str) -> str:
  """Of its first array; '' if it has none."""
  found = arrays(shape)
  return found[0][0] if found else ''


def dims_of(shape: str) -> list[int]:
  """Of its first array."""
  found = arrays(shape)
  return found[0][1] if found else []


def count_elements(shape: str) -> int:
  """Of all its arrays."""
  return sum(math.prod(dims) for _, dims in arrays(shape))


def count_bytes(shape: str) -> int:
  """Of all its arrays.

  >>> count_bytes('(f32[8,2]{1,0}, bf16[4], pred[])')
  73
  """
  return int(sum(math.prod(dims) * _width(t) for t, dims in arrays(shape)))


def _width(dtype: str) -> float:
  if dtype in _ODD_BYTES:
    return _ODD_BYTES[dtype]
  bits = re.search(r'[0-9]+', dtype)  # f32, bf16, f8e4m3fn
  return int(bits[0]) / 8 if bits else 0


__all__ = [
  'COLLECTIVES',
  'Computation',
  'Instruction',
  'Module',
  'arrays',
  'count_bytes',
  'count_elements',
  'dims_of',
  'dtype_of',
  'parse',
]
