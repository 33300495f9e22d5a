"""When a job goes back and when it ends: one rule, whoever runs it.

By the exit code of `gan_jax.train` and `gan_jax.ablate`:

- 0 done, 2 bad flags or a refused workdir, 3 diverged: it ends.
- 75 saved: it goes back, uncounted.
- anything else, a crash, a kill or a hang: it goes back, `crashes` times.
- whatever the code: after `stalls` restarts without one more checkpoint it
  ends, with 4, and says what is too short for what.

`launch/local.py` asks here between two attempts. A batch script does by

    restarts.py begin --job=ID -- FLAGS OF THE RUN    # 0, or 4: do not start
    restarts.py end --code=C --job=ID -- FLAGS OF THE RUN

whose exit code is that of the job, 75 to go back. A container's command is

    restarts.py run --job=ID -- COMMAND OF THE RUN

which does both, hands signals on, and leaves crashes to be counted by the
scheduler that starts the container; `--zero` is for one that, as docker does,
starts whatever does not end with 0. Of several containers of a run the first
one judges. What happened so far is kept beside the workdir, in
WORKDIR.restarts.json, and begins anew with another job ID. Of a workdir in an
object store (s3://...) that is an object, which takes the fsspec of the run.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

DONE, REFUSED, DIVERGED, STALLED, SAVED = 0, 2, 3, 4, 75
# However often the job is started, they recur.
FINAL = (DONE, REFUSED, DIVERGED, STALLED)
CRASHES = STALLS = 3
# All that a scheduler or a terminal sends to a job that is to end.
SIGNALS = (
  signal.SIGTERM,
  signal.SIGINT,
  signal.SIGHUP,
  signal.SIGUSR1,
  signal.SIGUSR2,
)


def describe_stall(restarts: int) -> str:
  """What to tell of a job that does not get to its next checkpoint."""
  return (
    f'{restarts} restarts have not brought one more checkpoint: the time limit'
    ' is too short for the start, the compilation and the steps to a'
    ' checkpoint. Raise the time limit or lower --checkpoint_every, and see'
    ' that the compilation cache (--compilation_cache) lies where every attempt'
    ' finds it; then submit the job again.'
  )


@dataclasses.dataclass(frozen=True)
class History:
  """What became of the attempts of one job so far.

  Attributes:
    job: whose they are.
    progress: what was on the disk at the last look, see `read_progress`.
    stalls: attempts since then, the present one among them.
    crashes: attempts that ended by a crash, a kill or a hang.
  """

  job: str = ''
  progress: str = ''
  stalls: int = 0
  crashes: int = 0

  def seen(self, progress: str) -> 'History':
    """After a look at the disk."""
    if progress == self.progress:
      return self
    return dataclasses.replace(self, progress=progress, stalls=0)


@dataclasses.dataclass(frozen=True)
class Verdict:
  """Whether to start the job again, and why; `code` is the job's if not."""

  again: bool
  code: int
  reason: str


def begin(history: History, stalls: int) -> tuple[History, Verdict]:
  """Counts an attempt that is about to be made, if it may be.

  Those before it may have ended with nobody left to judge them.
  """
  if history.stalls > stalls:
    return history, Verdict(False, STALLED, describe_stall(stalls))
  counted = dataclasses.replace(history, stalls=history.stalls + 1)
  return counted, Verdict(True, SAVED, '')


def end(
  history: History, code: int, crashes: int, stalls: int
) -> tuple[History, Verdict]:
  """Judges an attempt by its exit code.

  Args:
    history: with what is on the disk now.
    code: of the attempt, 128 + n for signal n.
    crashes: that are tolerated.
    stalls: restarts without a checkpoint that are.
  """
  if code in FINAL:
    return history, Verdict(False, code, f'ended with {code}')
  if code != SAVED:
    history = dataclasses.replace(history, crashes=history.crashes + 1)
    if history.crashes > crashes:
      reason = (
        f'ended with {code}, and {crashes} restarts after a crash or kill'
      )
      return history, Verdict(False, code, f'{reason} are behind it')
  if history.stalls > stalls:
    return history, Verdict(False, STALLED, describe_stall(stalls))
  if code == SAVED:
    return history, Verdict(True, SAVED, 'saved, or out of time: again')
  left = crashes - history.crashes
  return history, Verdict(True, SAVED, f'ended with {code}: again, {left} left')


# What is on the disk.


def is_url(workdir: str | os.PathLike[str]) -> bool:
  """Whether a workdir is in an object store."""
  return bool(re.match(r'[a-zA-Z][\w+.-]+://.', os.fspath(workdir)))


def _find(url: str) -> tuple[Any, str]:
  """The file system of a URL, and the path in it.

  Raises:
    ValueError: if what speaks to such a store is not installed.
  """
  try:
    import fsspec

    found: tuple[Any, str] = fsspec.url_to_fs(url)
  except ImportError as error:
    raise ValueError(
      f'--workdir={url}: {error}; judge with the Python of the run'
    ) from error
  found[0].invalidate_cache()
  return found


def _read_store(url: str, only: str) -> str:
  """`read_progress` of a store, where a manifest says that one is whole."""
  fs, root = _find(url)
  newest: dict[str, int] = {}
  ended: dict[str, bool] = {}
  pattern = (
    r'(?:programs/(\d+)/)?(?:checkpoints/(\d+)\.manifest\.json'
    r'|rescue/(\d+)\.npz|results\.json)'
  )
  for name in fs.find(root):
    match = re.fullmatch(pattern, name[len(root.rstrip('/')) + 1 :])
    if match is None:
      continue
    program = match[1] or ''
    if program and not _is_mine(program, only):
      continue
    step = int(match[2] or match[3] or 0)
    newest[program] = max(newest.get(program, 0), step)
    is_result = not (match[2] or match[3])
    ended[program] = ended.get(program, False) or is_result
  return ' '.join(f'{p}:{newest[p]}:{ended[p]:d}' for p in sorted(newest))


def _is_mine(program: str, only: str) -> bool:
  share, _, shares = only.partition('/')
  return not only or not (int(program) - int(share) + 1) % int(shares)


def read_progress(workdir: str | pathlib.Path, only: str = '') -> str:
  """What a run or an ablation has saved: other if there is one checkpoint more.

  Args:
    workdir: of the run or ablation.
    only: K/N, the share of the programs that counts.
  """
  if is_url(workdir):
    return _read_store(os.fspath(workdir), only)
  workdir = pathlib.Path(workdir)
  seen = []
  for folder in (workdir, *sorted(workdir.glob('programs/*'))):
    if folder != workdir and folder.name.isdigit():
      if not _is_mine(folder.name, only):
        continue
    names = [p.name for p in folder.glob('checkpoints/*') if p.name.isdigit()]
    names += [p.stem for p in folder.glob('rescue/*.npz')]
    ended = (folder / 'results.json').exists()
    if names or ended:
      newest = max(map(int, names), default=0)
      seen.append(
        f'{folder.name if folder != workdir else ""}:{newest}:{ended:d}'
      )
  return ' '.join(seen)


def flag(name: str, words: Sequence[str]) -> str:
  """The value of a run's flag, on the command line or in its flagfile."""
  found = ''
  for i, word in enumerate(words):
    match = re.fullmatch(rf'--?{name}=(.*)', word, re.DOTALL)
    if match:
      found = match[1]
    elif word in (f'--{name}', f'-{name}') and i + 1 < len(words):
      found = words[i + 1]
  if found or name == 'flagfile':
    return found
  flagfile = flag('flagfile', words)
  if not flagfile:
    return ''
  lines = pathlib.Path(flagfile).read_text(encoding='utf-8').splitlines()
  return flag(name, [line.strip() for line in lines])


class Job:
  """A job whose history is kept beside its workdir."""

  def __init__(self, name: str, words: Sequence[str]) -> None:
    """Of a command or the flags of a run; `name` is another for another job.

    Raises:
      ValueError: if the run has no workdir.
    """
    workdir, self._only = flag('workdir', words), flag('only', words)
    if not workdir:
      raise ValueError('--workdir: name the folder of the run')
    share = f'-{self._only.replace("/", "-of-")}' if self._only else ''
    self._name = name
    self._url = workdir.rstrip('/') if is_url(workdir) else ''
    self._unread = False
    if self._url:
      self._object = f'{self._url}.restarts{share}.json'
      return
    self._workdir = pathlib.Path(workdir).absolute()
    name_of_file = f'{self._workdir.name}.restarts{share}.json'
    self.path = self._workdir.with_name(name_of_file)

  def read(self) -> History:
    """With what is on the disk now; a new one for a new job."""
    try:
      history = History(**json.loads(self._read()))
    except FileNotFoundError:
      history = History()
    except (OSError, ValueError, TypeError) as error:
      # Of a store that is away: what it counts is neither known nor replaced.
      self._unread = bool(self._url) and isinstance(error, OSError)
      _warn(str(self._object if self._url else self.path), error)
      history = History()
    if history.job != self._name:
      history = History(job=self._name)
    if not self._url:
      return history.seen(read_progress(self._workdir, self._only))
    _find(self._url)  # whether its package is there
    try:
      return history.seen(_read_store(self._url, self._only))
    except Exception as error:  # the store is away: the run will wait for it
      _warn(self._url, error)
      return history

  def _read(self) -> str:
    if not self._url:
      return self.path.read_text(encoding='utf-8')
    fs, path = _find(self._object)
    try:
      return str(fs.cat_file(path).decode())
    except FileNotFoundError:
      raise
    except Exception as error:
      raise OSError(str(error)) from error

  def write(self, history: History) -> None:
    """Keeps it, whole or not at all."""
    if self._unread:
      return
    if self._url:
      fs, path = _find(self._object)
      try:
        fs.pipe_file(path, json.dumps(dataclasses.asdict(history)).encode())
      except Exception as error:
        _warn(self._object, error)
      return
    self.path.parent.mkdir(parents=True, exist_ok=True)
    scratch = self.path.with_name(f'.{self.path.name}.{os.getpid()}')
    text = json.dumps(dataclasses.asdict(history))
    scratch.write_text(f'{text}\n', encoding='utf-8')
    scratch.replace(self.path)


def _warn(url: str, error: Exception) -> None:
  print(f'warning: {url}: {error}', file=sys.stderr, flush=True)


def code_of(returncode: int) -> int:
  """An exit code as a shell has it, of what `subprocess` returns."""
  return returncode if returncode >= 0 else 128 - returncode


def run(command: Sequence[str]) -> int:
  """Runs a command to its end, handing signals on; its exit code."""
  running: list[subprocess.Popen[bytes]] = []
  early: list[int] = []

  def forward(number: int, frame: FrameType | None) -> None:
    del frame
    early.append(number)
    for process in running:
      if process.poll() is None:
        process.send_signal(number)

  for kind in SIGNALS:
    signal.signal(kind, forward)
  # Of a session of its own, so that a signal to the group comes once.
  process = subprocess.Popen(command, start_new_session=True)
  for number in early:
    process.send_signal(number)
  running.append(process)
  return code_of(process.wait())


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
  """A command line up to `--`, and what comes after it."""
  cut = words.index('--') if '--' in words else len(words)
  return list(words[:cut]), list(words[cut + 1 :])


def make_parser(about: str | None) -> argparse.ArgumentParser:
  """A parser of a script's options, whose help is the script's docstring."""
  return argparse.ArgumentParser(
    description=about,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )


def parse(words: Sequence[str]) -> argparse.Namespace:
  """The options, and in `words` what comes after `--`."""
  words, extra = split_words(words)
  parser = make_parser(__doc__)
  add = parser.add_argument
  add('action', choices=('begin', 'end', 'run'))
  add('--job', required=True, help='the same in every attempt of a job')
  add('--code', type=int, default=0, help='exit code of the attempt')
  add('--crashes', type=int, default=CRASHES, help='that are tolerated')
  add('--zero', action='store_true', help='end with 0 where it is to end')
  add(
    '--stalls', type=int, default=STALLS, help='restarts without a checkpoint'
  )
  options = parser.parse_args(words)
  options.words = extra
  return options


def main(words: Sequence[str]) -> int:
  """Judges, says why, and ends with the exit code of the job."""
  options = parse(words)
  code = _judge(options)
  return DONE if options.zero and code in FINAL else code


def _judge(options: argparse.Namespace) -> int:
  try:
    job = Job(options.job, options.words)
    if options.action == 'end':
      return _end(job, options.code, options)
    code = _begin(job, options)
  except (OSError, ValueError) as error:
    print(f'error: {error}', file=sys.stderr)
    return REFUSED
  if code or options.action == 'begin':
    return code
  code = run(options.words)
  if code != SAVED or not judges(os.environ, options.words):
    return code  # a crash is counted by who starts the container
  return _end(job, code, options)


def judges(environ: Mapping[str, str], words: Sequence[str]) -> bool:
  """Whether this container is the one that counts for its job.

  Kubernetes numbers the pods of a job, and the jobs of a JobSet.
  """
  indices = [environ.get(n, '0') for n in ('JOB_COMPLETION_INDEX', 'JOB_INDEX')]
  return bool(flag('only', words)) or indices == ['0', '0']


def _begin(job: Job, options: argparse.Namespace) -> int:
  if not judges(os.environ, options.words):
    return 0
  history, verdict = begin(job.read(), options.stalls)
  job.write(history)
  return 0 if verdict.again else _say(options, verdict)


def _end(job: Job, code: int, options: argparse.Namespace) -> int:
  history, verdict = end(job.read(), code, options.crashes, options.stalls)
  job.write(history)
  return _say(options, verdict)


def _say(options: argparse.Namespace, verdict: Verdict) -> int:
  print(f'job {options.job}: {verdict.reason}', file=sys.stderr, flush=True)
  return verdict.code


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
