"""An ablation over the processes of one job, each with a share of the runs.

No run depends on another, so that the processes compute nothing together: the
runs of a program are dealt out (`split`), and each process works on its own
programs as if it were alone. All they tell each other is how they have ended.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import jax

from gan_jax.ablation import folder
from gan_jax.ablation.plan import AblationPlan
from gan_jax.ablation.progress import say
from gan_jax.config import app
from gan_jax.runtime import multihost, preemption
from gan_jax.runtime.errors import Error
from gan_jax.training.remote import PeerFailed

_OFTEN = 0.5  # seconds from one look at what the others say to the next


def count_of(plan: AblationPlan) -> int:
  """The processes that share it out."""
  return multihost.count() if plan.base.multihost else 1


def share_of(plan: AblationPlan) -> AblationPlan:
  """What this process does of it."""
  return plan.share(f'{multihost.number() + 1}/{multihost.count()}')


def agree_on_split(plan: AblationPlan) -> AblationPlan:
  """The plan with its programs split as the first process decides.

  Raises:
    Error: in all processes, if the first one cannot.
  """
  if not multihost.is_first():
    text = multihost.tell_others(None)
    if not text.isdigit():
      code, _, failure = text.partition(' ')
      raise PeerFailed(failure, -int(code))
    return plan.split_by(int(text))
  try:
    plan = folder.decide_split(plan, multihost.count())
  except BaseException as error:
    multihost.tell_others(f'-{_code_of(error)} {_describe(error)}')
    raise
  multihost.tell_others(str(plan.options.split))
  return plan


def work_apart(
  plan: AblationPlan, work: Callable[[], int], leave: bool = False
) -> int:
  """Does this process's share; returns when those of all have ended.

  A signal to one of them, or its failure, saves and ends them all; but not one
  that works in another thread than the main one, which goes on to its end.

  Args:
    plan: whose `save_deadline` is how long the others are waited for then.
    work: that is done; returns an exit code. It hears of signals by itself.
    leave: whether nothing follows for which the processes need to be joined.

  Returns:
    The exit code of the job: 75 if one was stopped, else the greatest.

  Raises:
    PeerFailed: if another process failed; with its message and exit code.
  """
  board = multihost.Board()
  ended: dict[int, str] = {}

  def end(text: str) -> None:
    with preemption.listen() as listener:
      listener.raise_at_once = False
      _tell(board, text)
      ended.update(_wait(board, listener, plan.base.save_deadline, text))
      if leave and len(ended) == multihost.count():
        multihost.leave()

  try:
    with _stopping_with_others(board), multihost.apart():
      code = work()
  except KeyboardInterrupt:  # a signal while there was nothing to save
    end(str(app.SAVED))
    raise
  except BaseException as error:
    end(f'{_code_of(error)} {_describe(error)}')
    raise
  end(str(code))
  return _judge(ended)


def _code_of(error: BaseException) -> int:
  return error.exit_code if isinstance(error, Error) else app.ERROR


def _describe(error: BaseException) -> str:
  return str(error) or type(error).__name__


def _tell(board: multihost.Board, text: str) -> None:
  """Says how this process has ended, if the first one is there to hear it."""
  with contextlib.suppress(jax.errors.JaxRuntimeError):
    board.write(text)


def _stops(text: str) -> bool:
  """Whether what a process says of its end ends the others, too."""
  code, _, failure = text.partition(' ')
  return bool(failure) or int(code) == app.SAVED


@contextlib.contextmanager
def _stopping_with_others(board: multihost.Board) -> Iterator[None]:
  """Within, this process is stopped, as by Ctrl-C, when another one was."""
  over = threading.Event()

  def watch() -> None:
    with contextlib.suppress(jax.errors.JaxRuntimeError):
      while not over.wait(_OFTEN):
        if any(map(_stops, board.read().values())):
          say('another process of the job has ended: this one ends, too')
          preemption.interrupt_main()
          return

  thread = threading.Thread(target=watch, daemon=True)
  if threading.current_thread() is threading.main_thread():
    thread.start()
  try:
    yield
  finally:
    over.set()
    if thread.is_alive():
      thread.join()


def _wait(
  board: multihost.Board,
  listener: preemption.Listener,
  deadline: int,
  own: str,
) -> dict[int, str]:
  """What all say of their end; of some, if they take longer to stop."""
  ended: dict[int, str] = {}
  stopping = 0.0
  while len(ended) < multihost.count():
    if listener.received and not (stopping or _stops(own)):
      _tell(board, str(app.SAVED))
    try:
      ended = board.read()
    except jax.errors.JaxRuntimeError:  # the first process is gone
      return ended
    now = time.monotonic()
    if any(map(_stops, ended.values())):
      stopping = stopping or now
    if stopping and deadline and now - stopping > deadline:
      break
    time.sleep(_OFTEN)
  return ended


def _judge(ended: dict[int, str]) -> int:
  """The exit code of the job.

  >>> _judge({0: '0', 1: '75'}), _judge({0: '1', 1: '0'})
  (75, 1)

  Raises:
    PeerFailed: if one failed.
  """
  for number, text in sorted(ended.items()):
    code, _, failure = text.partition(' ')
    if failure:
      failure = f'process {number + 1} of the job failed: {failure}'
      raise PeerFailed(failure, int(code))
  codes = [int(text) for text in ended.values()]
  if app.SAVED in codes or len(codes) < multihost.count():
    return app.SAVED
  return max(codes)
