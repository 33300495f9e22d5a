"""Numbers and places of all commands, flagfiles, and the last resort."""

import importlib
import os
import pathlib

import pytest
from absl import flags
from helpers import commands

from gan_jax.__main__ import COMMANDS
from gan_jax.config import app, parsing, schema
from gan_jax.config.schema import FIELDS, ConfigError, Flag
from gan_jax.runtime import backend
from gan_jax.runtime.errors import ArgumentError, Error

PLACES = (
  'workdir',
  'out',
  'data_dir',
  'weights',
  'published',
  'from',
  'images',
)


def tables():
  return {c: importlib.import_module(f'gan_jax.{c}').FLAGS for c in COMMANDS}


@pytest.mark.parametrize('command', COMMANDS)
def test_every_number_of_a_command_has_bounds(command):
  for name, flag in tables()[command].items():
    kind = (
      flag.default if isinstance(flag.default, type) else type(flag.default)
    )
    if kind in (int, float):
      assert flag.low is not None and flag.high is not None, name
      assert flag.high <= parsing.INT_MAX
    if kind is str and name in PLACES:
      assert flag.place, name


def test_every_whole_number_of_a_configuration_has_bounds():
  for name, field in FIELDS.items():
    limits = field.metadata
    if type(field.default) is int:
      assert limits['low'] is not None, name
      assert limits['high'] is not None and limits['high'] <= parsing.INT_MAX
    if name in PLACES:
      assert limits['place'], name


@pytest.mark.parametrize(
  ('flag', 'word', 'remedy'),
  [
    (Flag(0, '', 0, 9), '-1', 'use 0 or more'),
    (Flag(0, '', 0, 9), '10', 'use 9 or less'),
    (Flag(int, '', 0, 9), '4294967297', 'use 9 or less'),
    (Flag(0, '', 0, 9), '٣', 'use a whole number'),
    (Flag(0, '', 0, 9), '0x3', 'use a whole number'),
    (Flag(0, '', 0, 9), '1e0', 'use a whole number'),
    (Flag(0, '', 0, 9), '9' * 5000, 'of 19 digits at the most'),
    (Flag(1.0, '', 0, 9.0), 'nan', 'use a finite number'),
    (Flag(1.0, '', 0, 9.0), 'inf', 'use a finite number'),
    (Flag(1.0, '', 0, 9.0), '１.5', 'use a number'),
    (Flag('', '', place=True), 'a/' + 300 * 'x', 'has 300 bytes; 255 are'),
    (Flag('', '', place=True), 'a/' * 2500, 'has 5000 bytes; 4095 are'),
    (Flag('', '', place=True), '~nosuchuser/x', 'no such user as ~nosuchuser'),
    (Flag('', '', place=True), 'a\nb', 'remove line breaks'),
    (Flag('', ''), ' a', 'remove white space'),
  ],
)
def test_a_word_that_is_no_value_is_refused_as_it_is_parsed(flag, word, remedy):
  values = flags.FlagValues()
  schema.define({'x': flag}, values)
  with pytest.raises(flags.IllegalFlagValueError, match=remedy) as caught:
    values(['command', f'--x={word}'])
  assert str(caught.value).startswith('flag --x=')


def test_words_that_are_values():
  values = flags.FlagValues()
  table = {'a': Flag(int, '', 0, 9999), 'b': Flag(1.0, '', 0, 9.0)}
  schema.define(table, values)
  values(['command', '--a=1_000', '--b=1e-3'])
  assert (values.a, values.b) == (1000, 1e-3)


@pytest.mark.parametrize(
  ('args', 'said'),
  [
    (['--width=2000000'], '`width=2000000`: use 1048576 or less'),
    (['--steps=2147483648'], '`steps=2147483648`: use 2147483647 or less'),
    (['--depth=1000000000'], '`depth=1000000000`: use 1000 or less'),
    (['--batch_size=٣'], 'use a whole number'),
    (['--lr_g=١'], 'use a number'),
    (['--regularizer=r1:١'], 'use a positive number'),
    ([f'--workdir={300 * "x"}'], '255 are the most'),
    (['--eval_samples=3'], '`eval_samples=3`: has no effect without'),
    (['--eval_seeds=3'], '`eval_seeds=3`: has no effect without'),
  ],
)
def test_a_configuration_is_refused(args, said):
  with pytest.raises(ConfigError) as caught:
    schema.from_args(args)
  assert said in str(caught.value)


# Flagfiles.


@pytest.mark.parametrize(
  ('line', 'word'),
  [
    ('--lr_g=1e-3  # as in the paper', '--lr_g=1e-3'),
    ('--workdir="runs/a b"', '--workdir=runs/a b'),
    ("--workdir='runs/a b'  # second", '--workdir=runs/a b'),
    ('--workdir=runs/a b', '--workdir=runs/a b'),
    ('--workdir=runs/#1', '--workdir=runs/#1'),
    ('--flip # mirrored', '--flip'),
    ('--features= # none', '--features='),
    ('# a note', ''),
    ('// a note', ''),
    ('  ', ''),
  ],
)
def test_notes_and_quotes_of_a_flagfile_are_no_values(line, word):
  assert parsing.flagfile_word(line) == word


@pytest.mark.parametrize(
  'value', ['"a"', "'a'", 'a # b', 'a "b', "it's", '#', '"a" # "b"', 'a=b', '']
)
def test_a_flagfile_gives_back_what_was_written(value, tmp_path):
  path = tmp_path / 'config.flags'
  path.write_text(parsing.format_flagfile([f'--workdir={value}', '--steps=3']))
  words = parsing.expand_flagfiles([f'--flagfile={path}', '--steps=4'])
  assert words == [f'--workdir={value}', '--steps=3', '--steps=4']


def test_a_flagfile_reads_others_and_not_itself(tmp_path):
  first, second = tmp_path / 'a', tmp_path / 'b'
  first.write_text(f'--steps=1\n--flagfile={second}\n--steps=2\n')
  second.write_text('--seed=5  # of the paper\n')
  words = parsing.expand_flagfiles(['--flagfile', str(first)])
  assert words == ['--steps=1', '--seed=5', '--steps=2']
  second.write_text(f'--flagfile={first}\n')
  with pytest.raises(ArgumentError, match='reads itself'):
    parsing.expand_flagfiles([f'--flagfile={first}'])


def test_a_flagfile_that_is_none(tmp_path):
  latin, pipe, prose = tmp_path / 'l', tmp_path / 'p', tmp_path / 't'
  latin.write_bytes(b'--workdir=\xff\n')
  os.mkfifo(pipe)
  prose.write_text('--steps=3\nsteps of a run\n')
  for path, said in (
    (tmp_path / 'no', r'cannot be read \(No such file or directory\)'),
    (tmp_path, 'it is no file'),
    (pipe, 'it is no file'),
    (pathlib.Path('/dev/zero'), 'it is no file'),
    (latin, 'it is not UTF-8'),
    (prose, 'line 2: steps of a run: write --name=value'),
  ):
    with pytest.raises(ArgumentError, match=said):
      parsing.expand_flagfiles([f'--flagfile={path}'])
  done = commands.run('report', f'--flagfile={prose}')
  assert done.returncode == app.REFUSED
  assert 'error: --flagfile=/' in done.stderr
  assert 'line 2: steps of a run: write --name=value' in done.stderr


# What nobody foresaw.


def crashing(error):
  def write_report(path):
    raise error

  return write_report


@pytest.mark.parametrize(
  ('error', 'said'),
  [
    (RuntimeError('one\n two'), 'not foreseen (RuntimeError: one two)'),
    (MemoryError(), 'error: out of memory, this machine has '),
    (ValueError('RESOURCE_EXHAUSTED: 3'), 'error: out of memory, cpu has '),
    (
      ValueError('RESOURCE_EXHAUSTED: allocating 3221225472 bytes'),
      'error: out of memory, 3.00 GiB were asked for at once, cpu has ',
    ),
    (ValueError('RESOURCE_EXHAUSTED: No space left on device'), 'not foreseen'),
  ],
)
def test_what_nobody_foresaw_is_one_line_and_a_file(
  error, said, monkeypatch, tmp_path
):
  from gan_jax.training import report

  monkeypatch.setattr(report, 'write_report', crashing(error))
  monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
  done = commands.run('report', '--workdir=x')
  assert done.returncode == app.ERROR
  assert said in done.stderr and done.stderr.count('\n') == 1
  (log,) = tmp_path.iterdir()
  assert str(log) in done.stderr
  assert 'Traceback (most recent call last)' in log.read_text()
  monkeypatch.setattr('tempfile.tempdir', str(tmp_path / 'no'))
  assert 'Traceback' in commands.run('report', '--workdir=x').stderr


def test_a_platform_without_a_device_is_named(monkeypatch):
  def devices():
    raise AssertionError

  monkeypatch.setattr('jax.devices', devices)
  with pytest.raises(Error, match='JAX_PLATFORMS=cpu: JAX finds no such dev'):
    backend.check_devices()


def test_memory_is_compared_with_what_there_is():
  limit = backend.host_memory_bytes()
  assert limit is None or limit > 2**28
  assert backend.memory_bytes() == limit  # on a CPU
  backend.require_memory('width', 3, 1, 'parameters')
  with pytest.raises(ArgumentError) as caught:
    backend.require_memory('width', 3, 2**60, 'parameters')
  assert '`width=3`: parameters would take 1,073,741,824.0 GiB' in str(
    caught.value
  )


def test_a_cache_of_programs_that_is_no_folder_is_refused(tmp_path):
  words = (f'--workdir={tmp_path / "a"}', '--dataset=ring')
  done = commands.run('train', *words, '--compilation_cache=/dev/full')
  assert done.returncode == app.REFUSED
  assert '--compilation_cache=/dev/full: is no folder; name one' in done.stderr


def test_names_of_files_are_counted_in_bytes():
  """As file systems count them, which know no letters."""
  assert parsing.place_remedy('a/' + 127 * 'é') == ''
  assert 'has 256 bytes' in parsing.place_remedy('a/' + 128 * 'é')
  assert parsing.place_remedy(4095 * '/') == ''
  assert 'has 4096 bytes' in parsing.place_remedy(4096 * '/')
