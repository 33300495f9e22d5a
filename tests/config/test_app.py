"""The command line: help by axis, errors with flags, commands by name."""

import importlib
import importlib.util
import pathlib
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
from absl import flags
from helpers import commands

import gan_jax as gj
from gan_jax.__main__ import COMMANDS
from gan_jax.config import app, schema
from gan_jax.config import help as help_lib

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def values():
  values = flags.FlagValues()
  schema.define_flags(values)
  return values


@pytest.mark.parametrize(
  ('message', 'printed'),
  [
    (
      '`lr_g=0.0`: use more than 0, or `optimizer_g=sgd`',
      '--lr_g=0.0: use more than 0, or --optimizer_g=sgd',
    ),
    ('`workdir=`: name a folder', '--workdir=: name a folder'),
    (
      '`reuse_real=True`: needs `d_steps`',
      '--reuse_real=true: needs --d_steps',
    ),
    ('`optimizer_d.beta1=2.0`: use less', '--beta1_d=2.0: use less'),
    ('`ema.halflife_kimg`: missing', '--ema_halflife_kimg: missing'),
    ('`networks=None`: give some, see `G.init`', None),
  ],
)
def test_arguments_are_printed_as_flags(message, printed):
  assert app.as_flags(message, schema.FIELDS) == (printed or message)


@pytest.mark.parametrize('width', [40, 80, 100])
def test_help_has_every_flag_once_and_breaks_no_word(values, width):
  text = help_lib.page(values, 'What it does.', width)
  assert text.startswith('What it does.\n')
  for name, field in schema.FIELDS.items():
    start = rf'^  --(\[no\])?{name}(=[A-Z]+)? \(default: '
    assert len(re.findall(start, text, re.MULTILINE)) == 1, name
    entry = re.split(start, text, flags=re.MULTILINE)[-1]
    entry = re.split(r'\n  --|\n\n', entry)[0]
    printed = ' '.join(entry.split())
    assert field.metadata['help'] in printed
    words = schema.words(name)
    assert not words or printed.endswith(f'Choices: {", ".join(words)}.')
  for line in text.splitlines():
    assert len(line) <= width or line.startswith(('  --', '--help')), line


def test_help_goes_by_axis(values):
  text = help_lib.page(values, '', 80)
  headings = re.findall(r'^[A-Z][\w ]+$', text, re.MULTILINE)
  assert headings == [
    *('The game', 'Networks', 'Optimizers', 'Data', 'What is looked at'),
    'The run',
  ]
  game = text.partition('The game')[2].partition('\nNetworks\n')[0]
  assert '--objective=TEXT (default: non_saturating)' in game
  assert '--lr_g' not in game


def test_help_finds_flags_by_name_text_and_choice(values):
  def found(word):
    text = help_lib.search(values, word, 80) or ''
    return re.findall(r'^  --(?:\[no\])?(\w+)', text, re.MULTILINE)

  assert found('--lr_d')[0] == 'lr_d'
  assert found('judges together') == ['packing']
  assert found('batch-size')[0] == 'batch_size'
  assert found('LR_D')[0] == 'lr_d' and found('Hinge') == found('hinge')
  assert 'objective' in found('hinge')
  assert found('metrics')[0] == 'metrics'
  assert found('objctive') == []
  assert 'objective' in help_lib.suggestions(values, 'objctive')


def gan(*words):
  return subprocess.run(
    [sys.executable, '-m', *words],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=60,
  )


def test_a_command_answers_help():
  done = gan('gan_jax.train', '--help')
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith('Trains one GAN')
  assert '\nThis command\n  --[no]summary (default: false)\n' in done.stdout
  done = gan('gan_jax.train', '--help=schdule')
  assert done.returncode == 2
  assert '--help=schdule' in done.stderr and 'schedule' in done.stderr


def test_a_bad_value_is_printed_with_its_flag():
  done = gan('gan_jax.train', '--workdir=w', '--lr_g=0', '--lr_final=.5')
  assert done.returncode == 2
  assert done.stderr.startswith('error: --lr_g=0.0: use more than 0\n')
  assert '--lr_final=0.5: has no effect under --lr_schedule=co' in done.stderr
  assert '`' not in done.stderr


@pytest.mark.parametrize(
  ('word', 'said'),
  [
    ('--lr=1e-3', '--lr: no such flag; did you mean --lr_g or --lr_d?'),
    ('--objectve=hinge', '--objectve: no such flag; did you mean --objective?'),
    ('--zz=1', '--zz: no such flag; see --help for those there are'),
  ],
)
def test_an_unknown_flag_is_told_with_those_that_are_like_it(word, said):
  done = gan('gan_jax.train', '--workdir=w', word)
  assert (done.returncode, done.stderr) == (2, f'error: {said}\n')


def test_a_command_s_own_flags_are_suggested_too():
  done = gan('gan_jax.sample', '--workdir=w', '--nums=3')
  said = 'error: --nums: no such flag; did you mean --num?\n'
  assert (done.returncode, done.stderr) == (2, said)


def test_the_package_is_a_command_too():
  done = gan('gan_jax')
  assert done.returncode == 0, done.stderr
  for name in COMMANDS:
    assert re.search(rf'^  {name} +[A-Z]', done.stdout, re.MULTILINE), name
  done = gan('gan_jax', 'trian')
  assert done.returncode == 2
  assert done.stderr == 'error: trian: no such command; did you mean train?\n'
  done = gan('gan_jax', '--help=fid')
  assert done.returncode == 2
  assert '`gan-jax train --help=fid`' in done.stderr
  done = gan('gan_jax', '--version')
  assert done.returncode == 0 and done.stdout == f'gan-jax {gj.__version__}\n'


@pytest.mark.parametrize('name', COMMANDS)
def test_a_command_of_the_package_is_the_module(name):
  alone, inside = (
    gan(f'gan_jax.{name}', '--help'),
    gan('gan_jax', name, '--help'),
  )
  assert inside.returncode == alone.returncode == 0, inside.stderr
  assert inside.stdout == alone.stdout


def test_a_command_run_by_a_test_leaves_nothing_to_others(monkeypatch):
  """What the type checker makes of it would be taken for the plain module."""
  spec = importlib.util.find_spec('gan_jax.report')
  assert spec is not None and spec.origin is not None
  kept = pathlib.Path(importlib.util.cache_from_source(spec.origin))
  kept.unlink(missing_ok=True)
  monkeypatch.setattr(sys, 'dont_write_bytecode', False)
  assert commands.run('report', '--help').returncode == 0
  # Another process may have kept the plain one there by now.
  assert not kept.exists() or b'jaxtyp' not in kept.read_bytes()


def test_exit_codes_pass_through_the_package():
  done = gan('gan_jax', 'prepare')
  assert done.returncode == 2
  assert done.stderr.startswith('error: --dataset=: name a set')


def test_ctrl_c_ends_a_command_in_order(monkeypatch, tmp_path):
  def interrupted(workdir):
    raise KeyboardInterrupt

  monkeypatch.setattr('gan_jax.training.report.write_report', interrupted)
  done = commands.run('report', f'--workdir={tmp_path}')
  assert done.returncode == app.INTERRUPTED == 130
  assert done.stderr == 'stopped by Ctrl-C; the same command does it again\n'


def test_an_interruption_that_a_callback_lost_is_not_printed(
  monkeypatch, capsys
):
  """It comes again, where it can be raised."""
  again, faults = [], (KeyboardInterrupt(), ValueError('Event loop is closed'))
  monkeypatch.setattr(app.preemption.threading, 'Timer', lambda *_: Timer())

  class Timer:
    def start(self):
      again.append(1)

  for error in faults:
    app._report_unraisable(SimpleNamespace(exc_value=error))
  assert again == [1] and capsys.readouterr().err == ''
  with pytest.raises(KeyboardInterrupt):
    app.preemption.raise_lost()


def test_home_is_found_wherever_a_flag_names_a_place():
  """Those of the commands and of a configuration; the cache finds its own."""
  names = COMMANDS
  tables = [importlib.import_module(f'gan_jax.{name}').FLAGS for name in names]
  places = {n for table in tables for n, flag in table.items() if flag.place}
  places |= {n for n, f in schema.FIELDS.items() if f.metadata['place']}
  assert places - {'compilation_cache'} == {*app._PLACES}


def test_a_home_folder_is_put_in_the_place_of_its_sign(monkeypatch, tmp_path):
  monkeypatch.setenv('HOME', str(tmp_path))
  done = commands.run('report', '--workdir=~/run')
  assert done.returncode == app.REFUSED
  assert '--workdir=/' in done.stderr and '~' not in done.stderr


def test_a_word_that_is_no_flag_is_refused():
  done = commands.run('report', '--workdir=x', 'y')
  assert done.returncode == app.REFUSED and done.stdout == ''
  assert done.stderr == 'error: y: not a flag; write --name=value\n'
