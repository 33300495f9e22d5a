"""Hostile command lines from a seed, and what each of them comes to.

A line is a command with a few of its flags at odd values. `check` runs it in
this process, up to where a run would begin (`cut`), and says what is wrong with
the answer: nothing, unless it is a traceback, or nonsense was accepted.
"""

import contextlib
import random
import signal
from typing import NamedTuple
from unittest import mock

from gan_jax.__main__ import COMMANDS
from helpers import commands

_FEW = 0.15  # how often a flag of many is at an odd value

# Words that no flag of the kind can mean.
NOT_INT = [
  'nan',
  'inf',
  '1e3',
  '1.5',
  '٣',
  '１２',
  '0x10',
  '--',
  '1 2',
  '',
  'x',
]
NOT_FLOAT = ['nan', 'inf', '-inf', 'infinity', '１.5', '٣', '1,5', '', '0x1p3']
TOO_FAR = [
  '9' * 30,
  '-' + '9' * 30,
  str(2**31),
  str(2**63),
  '-1',
  '-2147483649',
]
WORDS = [
  *('x', 'None', 'true', '"adam"', "'", '$(id)', '../..', '%s', '{}', 'a=b'),
  *(
    '\x00',
    '\n',
    '\t',
    ' ',
    'é',
    '日本',
    '\udcff',
    '🙂',
    '-',
    '--',
    '#',
    '[',
    ']',
  ),
  *('a' * 300, 'a/' * 3000, '~nosuchuser/x', 'r1:' + '9' * 400, 'r1@', 'r1:,'),
  *(
    'module:attribute',
    'os:system',
    'json:',
    ':',
    '@',
    ',',
    ',,',
    ';',
    '=',
    '/',
  ),
]
PLACES = [
  *(
    '/',
    '.',
    '..',
    '/dev/null',
    '/dev/full',
    '/proc/1/x',
    'a' * 300,
    'b/' * 3000,
  ),
  *(
    '~nosuchuser/x',
    '\x00',
    'no/such/folder',
    '[x]',
    ' ',
    'x\n',
    '\udcff',
    '#1',
  ),
]
VARY = [
  *('', '=', 'lr_g', 'lr_g=', 'lr_g=x', 'lr_g=1e-3,1e-3', 'seed=1,2', 'lrg=1'),
  *(
    'lr_g=loguniform(1,2)',
    'lr_g=loguniform(1e-5,1e-3,999999999)',
    'width=٣,4',
  ),
  *('lr_g=uniform(-inf,inf,3)', 'lr_g=uniform(0,1,-3)', 'steps=1e3', 'a+b=1/2'),
  *('lr_g+lr_d=1/2/3', 'objective=hinge,hing', 'batch_size=8,0', 'workdir=a,b'),
]


class Line(NamedTuple):
  """A command line.

  Attributes:
    command: of the package.
    words: that follow it.
    nonsense: those of them that no command may accept.
  """

  command: str
  words: list[str]
  nonsense: list[str]


def _tables():
  """The flags of each command: name to default and whether it is a place."""
  import importlib

  from gan_jax.config.schema import FIELDS

  own = {n: (f.default, f.metadata['place']) for n, f in FIELDS.items()}
  tables = {}
  for command in COMMANDS:
    flags = importlib.import_module(f'gan_jax.{command}').FLAGS
    table = {n: (f.default, f.place) for n, f in flags.items()}
    shared = own if command in ('train', 'ablate') else {}
    tables[command] = shared | table
  return tables


def lines(seed, count, run):
  """Some lines.

  Args:
    seed: of them.
    count: how many.
    run: folder of a run, for the commands that want one.
  """
  draw, tables = random.Random(seed), _tables()
  bases = {
    'train': [
      *('--dataset=ring', '--width=4', '--depth=1', '--batch_size=4'),
      *('--steps=2', '--report=false', '--compilation_cache=off'),
      f'--workdir={run}/../fresh',
    ],
    'sample': [f'--workdir={run}', f'--out={run}/../fuzz.npz'],
    'evaluate': [f'--workdir={run}', '--metrics=modes', '--samples=64'],
    'ablate': [
      *('--dataset=ring', f'--workdir={run}/../fuzz', '--width=4'),
      *('--depth=1', '--batch_size=4', '--compilation_cache=off'),
      *('--vary=lr_g=1e-3,1e-4', '--dry_run'),
    ],
    'prepare': ['--dataset=digits'],
    'report': [f'--workdir={run}'],
    'doctor': [f'--workdir={run}', '--seconds=0'],
  }
  for i in range(count):
    command = COMMANDS[i % len(COMMANDS)]
    table = tables[command]
    words = list(bases[command]) if draw.random() < 0.9 else []
    nonsense = []
    for name in draw.sample(
      sorted(table), min(len(table), draw.choice([1, 2]))
    ):
      word, is_nonsense = _odd(draw, name, *table[name])
      words.append(word)
      if is_nonsense:
        nonsense.append(word)
    if draw.random() < _FEW:
      words.append(draw.choice(_STRAY))
      nonsense.append(words[-1])
    yield Line(command, words, nonsense)


_STRAY = [
  *('--no_such_flag', '--lr=1', 'stray', '--flagfile=/no/such/file', '--=1'),
  *('--flagfile=/dev/zero', '--flagfile=/', '--flagfile', '-x', '--nosteps'),
]


def _odd(draw, name, default, place):
  """A flag at an odd value, and whether that is nonsense."""
  kind = default if isinstance(default, type) else type(default)
  if kind is bool:
    value = draw.choice(['maybe', '2', 'nan', '', 'TRUE!'])
    return f'--{name}={value}', True
  if kind is int:
    value = draw.choice([*NOT_INT, *TOO_FAR, '0', '1000000000', '2147483647'])
    return f'--{name}={value}', value in (*NOT_INT, *TOO_FAR)
  if kind is float:
    value = draw.choice([*NOT_FLOAT, '1e39', '-1e39', '1e-50', '-1', '0', '1'])
    return f'--{name}={value}', value in NOT_FLOAT
  if name == 'vary':
    return f'--vary={draw.choice(VARY)}', False
  value = draw.choice(PLACES if place else WORDS)
  bad = value != value.strip() or not value.isprintable()
  return f'--{name}={value}', bad and kind is str


class _Begun(BaseException):
  """The command line was accepted: what it asks for would begin now."""


def _begin(*args, **how):
  raise _Begun


@contextlib.contextmanager
def cut(*places):
  """Within, each of some functions ends a command as accepted."""
  with contextlib.ExitStack() as stack:
    for place in places:
      stack.enter_context(mock.patch(place, _begin))
    yield


# Where what a line asks for would begin.
BEGINNINGS = (
  'gan_jax.training.setup.build',
  'gan_jax.training.export.batches',
  'gan_jax.training.score_checkpoints.make_run_scorer',
  'gan_jax.evaluation.scorer.make_evaluator',
  'gan_jax.ablation.runner._run_dry',
  'gan_jax.ablation.runner.AblationRunner',
  'gan_jax.training.summary.summarise',
  'gan_jax.data.prepare',
)
# What reads a run, for lines about a folder that holds none.
READINGS = (
  'gan_jax.training.restore.open_run',
  'gan_jax.training.report.write_report',
)


@contextlib.contextmanager
def _limit(seconds):
  def stop(number, frame):
    raise TimeoutError(f'no answer in {seconds} s')

  before = signal.signal(signal.SIGALRM, stop)
  signal.alarm(seconds)
  try:
    yield
  finally:
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def check(line, seconds=60):
  """What is wrong with the answer to a line; '' if nothing is."""
  try:
    with _limit(seconds):
      done = commands.run(line.command, *line.words)
  except _Begun:
    accepted, text, code = True, '', 0
  except BaseException as error:  # it would be a traceback
    return f'{type(error).__name__}: {error}'
  else:
    text, code = done.stderr, done.returncode
    accepted = code == 0
  if accepted and line.nonsense:
    return f'accepted {line.nonsense}'
  if accepted:
    return ''
  if code not in (1, 2):
    return f'exit code {code}'
  if 'not foreseen' in text or 'Traceback' in text:
    return text[-600:]
  if not [x for x in text.splitlines() if x.startswith('error: ')]:
    return f'no line says what is wrong: {text[-300:]}'
  return ''
