"""What a run says while it runs: stats.jsonl, TensorBoard, the terminal."""

import contextlib
import math
import os
import pathlib
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from typing import IO, Any

import tqdm

from gan_jax.config.app import warn
from gan_jax.runtime import event_file, records, terminal
from gan_jax.runtime.progress import format_duration

Row = Mapping[str, Any]


def read_rows(path: pathlib.Path) -> list[dict[str, Any]]:
  """Rows of a log such as stats.jsonl.

  A last line that a kill cut short is left out, and so is a damaged one, which
  is warned of.
  """
  rows, damaged = records.read_lines(path)
  if damaged:
    warn(records.describe_damage(path, damaged))
  return rows


def scan_rows(path: pathlib.Path) -> Iterator[dict[str, Any]]:
  """As `read_rows`, one row after another: a log may be of any length."""
  damaged: dict[int, str] = {}
  yield from records.scan_lines(path, damaged)
  if damaged:
    warn(records.describe_damage(path, damaged))


def _finite(value: Any) -> Any:
  """JSON has no NaN."""
  unknown = isinstance(value, float) and not math.isfinite(value)
  return None if unknown else value


class _Board:
  """A TensorBoard event file, written by the thread that logs."""

  def __init__(self, folder: pathlib.Path, purge: int) -> None:
    """Starts no file before there is something to write.

    Args:
      folder: of the event files.
      purge: what earlier files say from this step on is hidden.
    """
    self._folder, self._purge = folder, purge
    self._file: event_file.EventFile | None = None

  def _start(self) -> event_file.EventFile:
    self._folder.mkdir(exist_ok=True)
    now = time.time()
    number = max(round(now), self._newest() + 1)
    name = f'events.out.tfevents.{number:010d}.{platform.node()}.{os.getpid()}'
    file = event_file.EventFile(self._folder / name)
    file.write(event_file.version(now))
    file.write(event_file.session(now, self._purge))
    return file

  def _newest(self) -> int:
    """Number of the newest file; -1 for none.

    TensorBoard reads files in the order of their names, and a clock may have
    been set back.
    """
    names = (path.name for path in self._folder.glob('events.out.tfevents.*'))
    numbers = (name.split('.')[3] for name in names)
    return max((int(n) for n in numbers if n.isdigit()), default=-1)

  def add(self, event: bytes) -> None:
    """Adds an event; it is on its way to the disk when this returns."""
    if self._file is None:
      self._file = self._start()
    self._file.write(event)
    self._file.flush()

  def close(self) -> None:
    """Writes out what is buffered."""
    if self._file is not None:
      self._file.close()


class Log:
  """Rows of numbers, one a line, and the same to TensorBoard."""

  def __init__(
    self, workdir: pathlib.Path, step: int, last_row: int = 0
  ) -> None:
    """Continues the log of a run at `step`; later rows are dropped.

    Args:
      workdir: folder of the run.
      step: of the checkpoint that it continues from; 0 for none.
      last_row: step of the newest row when that was saved; 0 for none.
    """
    self._folder, self._files = workdir, contextlib.ExitStack()
    self._open: dict[str, IO[str]] = {}
    # What is written at the start is written again where it starts afresh.
    last_step = step if step else -1
    for name in ('stats', 'dynamics'):
      path = workdir / f'{name}.jsonl'
      if name == 'stats' or path.exists():
        damaged: dict[int, str] = {}
        newest = records.cut_lines(path, last_step, damaged)
        if damaged:
          warn(records.describe_damage(path, damaged))
        if name == 'stats' and newest < last_row:
          warn(
            f'{path}: ends at step {newest}, and had rows up to step {last_row}'
          )
    self._board = _Board(workdir / 'tensorboard', last_step + 1)
    self._files.callback(self._board.close)
    self._file('stats')

  def _file(self, name: str) -> IO[str]:
    if name not in self._open:
      path = self._folder / f'{name}.jsonl'
      file: IO[str] = open(path, 'a', encoding='utf-8', newline='\n')
      self._open[name] = self._files.enter_context(file)
    return self._open[name]

  def _reopen(self, name: str, path: pathlib.Path) -> None:
    """Goes on in a new file where the old one was taken away.

    Raises:
      OSError: if the folder is gone as well.
    """
    self._open.pop(name)
    self._file(name)
    warn(
      f'{path} was removed while the run goes on; later rows are in a new one'
    )

  def write(self, row: Row, name: str = 'stats') -> None:
    """Adds a row; it is on its way to the disk when this returns.

    Args:
      row: numbers, among them the step; lists are not for TensorBoard, and
        what is not finite becomes null.
      name: of the file, `stats` or `dynamics`.
    """
    path = self._folder / f'{name}.jsonl'
    if name in self._open and not path.exists():
      self._reopen(name, path)
    file = self._file(name)
    file.write(records.format_line({k: _finite(v) for k, v in row.items()}))
    file.flush()
    self.show({k: v for k, v in row.items() if k != 'step'}, row['step'])

  def show(self, numbers: Row, step: float) -> None:
    """Shows in TensorBoard what of a row is a number."""
    shown = {
      key: number
      for key, number in numbers.items()
      if isinstance(number, int | float) and math.isfinite(number)
    }
    if shown:
      self._board.add(event_file.numbers(time.time(), int(step), shown))

  def image(self, name: str, png: bytes, step: int) -> None:
    """Shows a PNG file in TensorBoard."""
    self._board.add(event_file.picture(time.time(), step, name, png))

  def close(self) -> None:
    """Writes out what is buffered.

    Raises:
      OSError: if there is no room; both files are closed all the same.
    """
    self._files.close()


def _unread() -> contextlib.AbstractContextManager[None]:
  """Within, a terminal may have gone away."""
  return contextlib.suppress(OSError, ValueError)


class Progress:
  """A bar on a terminal, plain lines elsewhere; silent when not `shown`."""

  def __init__(self, step: int, steps: int, shown: bool = True) -> None:
    """Starts at `step` of `steps`."""
    self._steps, self._shown = steps, shown
    self._bar: tqdm.tqdm[Any] | None = None
    if shown and sys.stderr is not None and sys.stderr.isatty():
      self._bar = tqdm.tqdm(
        total=steps, initial=step, unit='step', dynamic_ncols=True
      )

  def say(self, text: str) -> None:
    """Prints a line without tearing the bar."""
    if not self._shown:
      return
    if self._bar is not None:
      with _unread():
        self._bar.write(text, file=sys.stderr)
    else:
      terminal.tell(text, sys.stderr)

  def minute(self, text: str) -> None:
    """Prints the line of a minute, where there is no bar that says it."""
    if self._bar is None:
      self.say(text)

  def moved(self, step: int) -> None:
    """Moves the bar."""
    if self._bar is not None:
      with _unread():
        self._bar.update(step - self._bar.n)

  def row(self, row: Row) -> None:
    """Shows a row of the log."""
    speed = row['speed/images_per_sec']
    losses = (
      f'D(x) {row["d/prob_real"]:.3f}  D(G(z)) {row["d/prob_fake"]:.3f}  '
      f'loss d {row["d/loss"]:.3f} g {row["g/loss"]:.3f}  {speed:,.0f} images/s'
    )
    if self._bar is not None:
      self._bar.set_postfix_str(losses, refresh=False)
      return
    left = (self._steps - row['step']) * row['speed/sec_per_step']
    self.say(
      f'step {row["step"]}/{self._steps}  {losses}  {format_duration(left)}'
      ' left'
    )

  def close(self) -> None:
    """Leaves the terminal in order."""
    if self._bar is not None:
      with _unread():
        self._bar.close()
