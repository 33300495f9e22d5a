"""Runs `gan_jax.train` and says what its first dispatch had cost when it ended.

Ends the process there: CPU seconds of all threads since the process began, and
the most memory that it held, as one line of JSON on standard output.

  python experiments/speed/start/first_step.py --dataset=ring --workdir=DIR ...
"""

import json
import os
import resource
import runpy
import sys
from typing import Any


def report(*unused: Any) -> None:
  """Prints and ends: the first step is done."""
  del unused
  usage = resource.getrusage(resource.RUSAGE_SELF)
  facts = {
    'cpu_sec': usage.ru_utime + usage.ru_stime,
    'peak_mib': usage.ru_maxrss / 1024,
  }
  os.write(1, (json.dumps(facts) + '\n').encode())
  os._exit(0)


class Hook:
  """Puts `report` in its place when the loop's module has been imported."""

  name = 'gan_jax.training.run_loop'

  def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
    """Wraps the loader of the one module."""
    if name != self.name:
      return None
    sys.meta_path.remove(self)
    import importlib.util

    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.loader is not None
    execute = spec.loader.exec_module

    def exec_module(module: Any) -> None:
      execute(module)
      module.RunLoop.after_dispatch = report

    spec.loader.exec_module = exec_module
    return spec


if __name__ == '__main__':
  sys.meta_path.insert(0, Hook())
  runpy.run_module('gan_jax.train', run_name='__main__', alter_sys=True)
