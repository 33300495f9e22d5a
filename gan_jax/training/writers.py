"""What a run says while it runs: stats.jsonl, TensorBoard, the terminal."""

import contextlib
import io
import json
import math
import os
import pathlib
import platform
import sys
import time
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
import PIL.Image
import tqdm
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter

from gan_jax.runtime.files import write_atomic
from gan_jax.runtime.progress import format_duration

Row = Mapping[str, Any]


def read_rows(path: pathlib.Path) -> list[dict[str, Any]]:
  """Lines of a stats.jsonl; a last line that a kill cut short is left out."""
  if not path.is_file():
    return []
  rows = []
  for line in path.read_text().splitlines(keepends=True):
    if line.endswith('\n'):
      rows.append(json.loads(line))
  return rows


def _finite(value: Any) -> Any:
  """JSON has no NaN."""
  unknown = isinstance(value, float) and not math.isfinite(value)
  return None if unknown else value


class _Board:
  """A TensorBoard event file, written by the thread that logs.

  tensorboardX's own SummaryWriter writes from another, whose end on a full
  disk nobody learns of: its queue fills and the run waits for ever.
  """

  def __init__(self, folder: pathlib.Path, purge: int) -> None:
    """Starts a file; what earlier ones say from step `purge` on is hidden."""
    folder.mkdir(exist_ok=True)
    now = time.time()
    name = f'events.out.tfevents.{now:.0f}.{platform.node()}.{os.getpid()}'
    self._writer = RecordWriter(str(folder / name))
    self._write(Event(wall_time=now, file_version='brain.Event:2'))
    start = SessionLog(status=SessionLog.START)
    self._write(Event(wall_time=now, step=purge, session_log=start))

  def _write(self, event: Event) -> None:
    self._writer.write(event.SerializeToString())

  def add(self, value: Any, step: float) -> None:
    """Adds a summary."""
    self._write(Event(wall_time=time.time(), step=int(step), summary=value))

  def flush(self) -> None:
    """Hands everything to the operating system."""
    self._writer.flush()

  def close(self) -> None:
    """Writes out what is buffered."""
    self._writer.close()


class Log:
  """Rows of numbers, one a line, and the same to TensorBoard."""

  def __init__(self, workdir: pathlib.Path, step: int) -> None:
    """Continues the log of a run at `step`; later rows are dropped."""
    self._folder, self._files = workdir, contextlib.ExitStack()
    self._open: dict[str, IO[str]] = {}
    for name in ('stats', 'dynamics'):
      path = workdir / f'{name}.jsonl'
      if name == 'stats' or path.exists():
        rows = [r for r in read_rows(path) if r['step'] <= step]
        write_atomic(path, ''.join(json.dumps(r) + '\n' for r in rows))
    self._board = _Board(workdir / 'tensorboard', step + 1)
    self._files.callback(self._board.close)
    self._file('stats')

  def _file(self, name: str) -> IO[str]:
    if name not in self._open:
      path = self._folder / f'{name}.jsonl'
      file: IO[str] = open(path, 'a', encoding='utf-8')
      self._open[name] = self._files.enter_context(file)
    return self._open[name]

  def write(self, row: Row, name: str = 'stats') -> None:
    """Adds a row; it is on its way to the disk when this returns.

    Args:
      row: numbers, among them the step; lists are not for TensorBoard, and
        what is not finite becomes null.
      name: of the file, `stats` or `dynamics`.
    """
    file = self._file(name)
    file.write(json.dumps({k: _finite(v) for k, v in row.items()}) + '\n')
    file.flush()
    self.show({k: v for k, v in row.items() if k != 'step'}, row['step'])

  def show(self, numbers: Row, step: float) -> None:
    """Shows in TensorBoard what of a row is a number."""
    for key, number in numbers.items():
      if isinstance(number, int | float) and math.isfinite(number):
        self._board.add(summary.scalar(key, number), step)

  def image(self, name: str, png: bytes, step: int) -> None:
    """Shows a PNG file in TensorBoard."""
    with PIL.Image.open(io.BytesIO(png)) as picture:
      pixels = np.asarray(picture.convert('RGB'))
    event = summary.image(name, pixels, dataformats='HWC')
    self._board.add(event, step)
    self._board.flush()

  def close(self) -> None:
    """Writes out what is buffered.

    Raises:
      OSError: if there is no room; both files are closed all the same.
    """
    self._files.close()


class Progress:
  """A bar on a terminal, plain lines elsewhere; silent when not `shown`."""

  def __init__(self, step: int, steps: int, shown: bool = True) -> None:
    """Starts at `step` of `steps`."""
    self._steps, self._shown = steps, shown
    self._bar: tqdm.tqdm[Any] | None = None
    if shown and sys.stderr.isatty():
      self._bar = tqdm.tqdm(
        total=steps, initial=step, unit='step', dynamic_ncols=True
      )

  def say(self, text: str) -> None:
    """Prints a line without tearing the bar."""
    if not self._shown:
      return
    if self._bar is not None:
      self._bar.write(text, file=sys.stderr)
    else:
      print(text, file=sys.stderr, flush=True)

  def moved(self, step: int) -> None:
    """Moves the bar."""
    if self._bar is not None:
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
      self._bar.close()
