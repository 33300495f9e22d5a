"""Puts faults into the code, one at a time, and asks the tests to see them.

    python experiments/faults/run.py [--only=TEXT] [--again] [--marked]

Each `*.toml` beside this file lists faults of one part of the package: the
file, what is wrong then, the text and what stands in its place, and the tests
that should fail. They run on a copy of the repository, first without any fault
(they must pass), then with each. What was found goes into the `.csv` of the
same name; what stands there for the very same fault is not run again.
"""

import argparse
import csv
import dataclasses
import hashlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
COLUMNS = ('id', 'file', 'what', 'seen', 'by', 'cpu_seconds')
SECONDS = 1200  # after which a fault counts as a hang, which a test would show


@dataclasses.dataclass(frozen=True)
class Fault:
  """One fault: `old` becomes `new` in `file`; `tests` should fail."""

  part: str
  file: str
  what: str
  old: str
  new: str
  tests: tuple[str, ...]

  @property
  def id(self) -> str:
    """Of this fault alone: another text is another fault."""
    words = '\0'.join((self.file, self.old, self.new))
    return hashlib.sha256(words.encode()).hexdigest()[:12]


def faults() -> list[Fault]:
  """All faults of the lists."""
  found = []
  for path in sorted(HERE.glob('*.toml')):
    for row in tomllib.loads(path.read_text('utf-8'))['fault']:
      fault = Fault(
        path.stem,
        row['file'],
        row['what'],
        row['from'],
        row['to'],
        tuple(row['tests'].split()),
      )
      count = (ROOT / fault.file).read_text('utf-8').count(fault.old)
      if count != 1:
        sys.exit(
          f'error: {path.name}: {fault.what!r}: its `from` occurs {count} '
          f'times in {fault.file}, not once; bring the list up to date'
        )
      found.append(fault)
  assert len({f.id for f in found}) == len(found), 'a fault is listed twice'
  return found


def copied(to: pathlib.Path) -> pathlib.Path:
  """A copy of the working tree: what git tracks and what it does not ignore."""
  names = subprocess.run(
    ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
    cwd=ROOT,
    check=True,
    capture_output=True,
    text=True,
  ).stdout.split('\0')
  for name in filter(None, names):
    if (ROOT / name).is_file():
      (to / name).parent.mkdir(parents=True, exist_ok=True)
      shutil.copy2(ROOT / name, to / name)
  return to


def asked(
  tests: tuple[str, ...], copy: pathlib.Path, marked: bool
) -> tuple[str, float]:
  """The first test that failed ('' for none), and CPU seconds."""
  words = [sys.executable, '-m', 'pytest', '-x', '-q', '-n', '0', *tests]
  words += ['-p', 'no:cacheprovider', '--no-header', '-rfE', '--tb=no']
  if marked:
    words += ['-m', 'not soak and not gpu and not data']
  environment = os.environ | {
    'PYTHONPATH': str(copy),
    'PYTHONDONTWRITEBYTECODE': '1',
    'JAX_PLATFORMS': 'cpu',
    'COLUMNS': '500',
  }
  before = os.times()
  process = subprocess.Popen(
    words,
    cwd=copy,
    env=environment,
    text=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    start_new_session=True,
  )
  try:
    said = process.communicate(timeout=SECONDS)[0]
  except subprocess.TimeoutExpired:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return 'a hang', float(SECONDS)
  after = os.times()
  took = after.children_user + after.children_system
  took -= before.children_user + before.children_system
  if process.returncode in (0, 5):  # 5: all of them are marked ones
    return '', took
  failed = re.search(r'^(?:FAILED|ERROR) (\S+)', said, re.MULTILINE)
  if process.returncode == 4:
    sys.exit(f'error: pytest {" ".join(tests)} finds no such test:\n{said}')
  return failed[1] if failed else f'exit {process.returncode}', took


def kept(part: str) -> dict[str, dict[str, str]]:
  """Rows of a part's table so far, by the fault's id."""
  path = HERE / f'{part}.csv'
  if not path.exists():
    return {}
  with path.open(newline='', encoding='utf-8') as file:
    return {row['id']: row for row in csv.DictReader(file)}


def keep(part: str, rows: dict[str, dict[str, str]]) -> None:
  """Writes a part's table."""
  with (HERE / f'{part}.csv').open('w', newline='', encoding='utf-8') as file:
    writer = csv.DictWriter(file, COLUMNS, lineterminator='\n')
    writer.writeheader()
    writer.writerows(sorted(rows.values(), key=lambda r: (r['file'], r['id'])))


def main() -> None:
  """Runs what is not in the tables yet."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--only', default='', help='faults that hold this text')
  parser.add_argument('--again', action='store_true', help='kept ones too')
  parser.add_argument(
    '--marked', action='store_true', help='ask the marked tests too'
  )
  options = parser.parse_args()
  listed = faults()
  rows = {
    part: {f.id: kept(part)[f.id] for f in listed if f.id in kept(part)}
    for part in sorted({f.part for f in listed})
  }
  again = ['yes', 'marked', 'no'] if options.again else []
  again += ['no'] if options.marked else []
  todo = [
    f
    for f in listed
    if options.only in f'{f.part} {f.file} {f.what}'
    and (f.id not in rows[f.part] or rows[f.part][f.id]['seen'] in again)
  ]
  clean: set[tuple[str, ...]] = set()
  with tempfile.TemporaryDirectory(prefix='faults-') as folder:
    copy = copied(pathlib.Path(folder))
    for i, fault in enumerate(todo):
      if fault.tests not in clean:
        failed, _ = asked(fault.tests, copy, options.marked)
        if failed:
          sys.exit(f'error: {failed} fails without any fault')
        clean.add(fault.tests)
      path = copy / fault.file
      whole = path.read_text('utf-8')
      path.write_text(whole.replace(fault.old, fault.new), 'utf-8')
      start = time.monotonic()
      try:
        by, took = asked(fault.tests, copy, options.marked)
      finally:
        path.write_text(whole, 'utf-8')
      seen = 'no' if not by else 'marked' if options.marked else 'yes'
      rows[fault.part][fault.id] = {
        'id': fault.id,
        'file': fault.file,
        'what': fault.what,
        'seen': seen,
        'by': by,
        'cpu_seconds': f'{took:.1f}',
      }
      keep(fault.part, rows[fault.part])
      print(
        f'{i + 1}/{len(todo)} {seen:6} {time.monotonic() - start:5.0f} s  '
        f'{fault.file}: {fault.what}  {by}',
        flush=True,
      )
  count = [r['seen'] for part in rows.values() for r in part.values()]
  print(
    f'{count.count("yes")} of {len(count)} seen by the default suite, '
    f'{count.count("marked")} by the marked tests, {count.count("no")} by none'
  )


if __name__ == '__main__':
  main()
