"""Worker processes: answers in order, errors told, none left behind."""

import os
import signal
import subprocess
import sys
import time

import pytest

from gan_jax.runtime.errors import Error
from gan_jax.runtime.workers import Workers


def test_answers_come_in_order_and_errors_arrive():
  with Workers('gan_jax.runtime.errors:shortened', 2) as workers:
    words = [(f'word {i}',) for i in range(40)]
    assert list(workers.map(words)) == [word for (word,) in words]
    with pytest.raises(Error, match='TypeError'):
      workers.submit(1, 2, 3).result()
    assert workers.submit('goes on').result() == 'goes on'


def test_a_process_that_is_killed_is_told():
  workers = Workers('gan_jax.runtime.errors:shortened', 1)
  assert workers.submit('x').result() == 'x'
  (worker,) = workers._workers
  os.kill(worker._process.pid, signal.SIGKILL)
  with pytest.raises(Error, match=r'has ended \(signal 9\)'):
    workers.submit('x').result()
  workers.close()


def test_what_nobody_will_read_is_not_waited_for():
  began = time.monotonic()
  with pytest.raises(KeyboardInterrupt):
    with Workers('time:sleep', 1) as workers:
      workers.submit(0).result()
      workers.submit(60)
      raise KeyboardInterrupt
  assert time.monotonic() - began < 30


SCRIPT = """
import os, signal, sys
from gan_jax.runtime.workers import Workers
workers = Workers('gan_jax.runtime.errors:shortened', 1)
workers.submit('x').result()
print(workers._workers[0]._process.pid, 'jax' in sys.modules, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_script_needs_no_guard_and_leaves_no_process_behind(tmp_path):
  """Whatever kills it."""
  (tmp_path / 'script.py').write_text(SCRIPT)
  done = subprocess.run(
    [sys.executable, str(tmp_path / 'script.py')],
    capture_output=True,
    text=True,
    timeout=60,
  )
  pid, has_jax = done.stdout.split()
  assert has_jax == 'False' and done.returncode == -signal.SIGKILL
  for _ in range(100):
    try:
      os.kill(int(pid), 0)
    except ProcessLookupError:
      return
    with open(f'/proc/{pid}/stat') as file:  # ended, and not waited for
      if file.read().rpartition(')')[2].split()[0] == 'Z':
        return
    signal.sigtimedwait([], 0.05)
  pytest.fail('the process goes on')
