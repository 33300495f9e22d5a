"""What a script of this folder measured, written as it comes."""

import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any


def recorder(out: pathlib.Path) -> Callable[[str, Any], None]:
  """A function that prints a named value and keeps it in a JSON file.

  Args:
    out: the file, which begins with the command.
  """
  values: dict[str, Any] = {'command': ' '.join(sys.argv)}

  def note(name: str, value: Any) -> None:
    values[name] = value
    print(name, value, flush=True)
    out.write_text(json.dumps(values, indent=2) + '\n')

  return note
