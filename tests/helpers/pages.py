"""Pages of the repository: their blocks, and what running them takes."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]
_FENCE = re.compile(r'^```(\w*)[^\n]*\n(.*?)^```$', re.DOTALL | re.MULTILINE)


def name_of(path: pathlib.Path) -> str:
  """A page as it is called in the names of tests."""
  return str(path.relative_to(ROOT))


def fenced(path: pathlib.Path, *languages: str) -> list[str]:
  """The blocks of a page that are of one of these languages."""
  found = _FENCE.findall(path.read_text(encoding='utf-8'))
  return [body for language, body in found if language in languages]


def shortened(code: str, **numbers: int) -> str:
  """Code with smaller numbers: `steps=5000` and `STEPS = 5000` become small.

  Raises:
    AssertionError: if it has none of them.
  """
  for name, number in numbers.items():
    assignment = rf'\b{name}( ?= ?)\d[\d_]*'
    assert re.search(assignment, code), f'no {name} to shorten'
    code = re.sub(assignment, rf'{name}\g<1>{number}', code)
  return code


def run_blocks(path: pathlib.Path, **numbers: int) -> dict[str, object]:
  """Runs the Python of a page from top to bottom; returns its names."""
  space: dict[str, object] = {}
  code = '\n'.join(fenced(path, 'python'))
  exec(compile(shortened(code, **numbers), name_of(path), 'exec'), space)
  return space
