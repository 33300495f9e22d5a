"""The report: what it says, shows and stands on, whatever became of the run."""

import base64
import json
import math
import os
import re
import xml.etree.ElementTree

import numpy as np
import PIL.Image
import pytest
from helpers import commands
from helpers.htmlpage import Page, svg_words

from gan_jax import data
from gan_jax.config import schema as config_lib
from gan_jax.config.schema import Config
from gan_jax.figures import curves, images
from gan_jax.runtime.errors import ArgumentError, Error
from gan_jax.training import report

LOG4 = math.log(4)


def row(step, value=-1.2, **other):
  """A line of stats.jsonl."""
  return {
    'step': step,
    'images': 64 * step,
    'd/loss': -value,
    'g/loss': 0.7,
    'd/prob_real': 0.5671,
    'd/prob_fake': 0.4329,
    'd/logit_real': 0.27,
    'd/logit_fake': -0.27,
    'game/value': value,
    'game/jsd_bound': (value + LOG4) / 2,
    'd/grad_norm': 1.0,
    'g/grad_norm': 2.0,
    'd/param_norm': 3.0,
    'g/param_norm': 4.0,
    'speed/images_per_sec': 1000.0,
    'speed/sec_per_step': 0.064,
    'time/train_sec': 0.1 * step,
    **other,
  }


def facts(config, bounded, **other):
  return {
    'command': f'python -m gan_jax.train --dataset={config.dataset}',
    'versions': {'jax': '0.10.2', 'numpy': '2.4.6'},
    'python': '3.11.7',
    'platform': 'Linux',
    'devices': ['cpu', 'cpu'],
    'processes': 1,
    'commit': 'abc1234',
    'dataset': {
      'name': config.dataset,
      'size': 1797 if bounded else None,
      'shape': [8, 8, 1] if bounded else [1],
      'bounded': bounded,
      'fingerprint': 'f00d',
    },
    'parameters': {'generator': 12345, 'discriminator': 678},
    'started': '2026-01-02T03:04:05+00:00',
    'outcome': 'done',
    'step': config.steps,
    'compile_sec': 1.5,
    'train_sec': 75.0,
    **other,
  }


def snapshot(density, step, latent_dim=1, n=200):
  """Samples of a density and a D over a grid, as the trainer leaves them."""
  rng = np.random.default_rng(step)
  low, high = density.extent
  side = np.linspace(low, high, {1: 512, 2: 96}[density.dim], dtype=np.float32)
  grid = np.stack(
    [a.ravel() for a in np.meshgrid(*[side] * density.dim)], axis=-1
  )
  z = rng.uniform(-1, 1, (n, latent_dim)).astype(np.float32)
  x = (z[:, :1] + rng.normal(size=(n, density.dim))).astype(np.float32)
  prob = 1 / (1 + np.exp(-grid[:, 0]))
  real = rng.normal(size=(n, density.dim)).astype(np.float32)
  return dict(z=z, x=x, x_ema=x + 1, grid=grid, prob=prob, real=real)


class Workdir:
  """A workdir as the trainer leaves it, without a trainer."""

  def __init__(self, path, bounded, rows=(), told=None, **values):
    self.path = path
    self.config = Config(steps=200, **values)
    (path / 'samples').mkdir()
    (path / 'config.flags').write_text(
      '\n'.join(config_lib.to_args(self.config)) + '\n'
    )
    found = facts(self.config, bounded, **(told or {}))
    (path / 'run.json').write_text(json.dumps(found))
    (path / 'stats.jsonl').write_text(
      ''.join(json.dumps(r) + '\n' for r in rows)
    )

  def grids(self, steps, kinds=('step', 'ema')):
    rng = np.random.default_rng(0)
    for step in steps:
      for kind in kinds:
        x = rng.uniform(-1, 1, (4, 8, 8, 1))
        name = f'{kind}_{step:09d}.png'
        (self.path / 'samples' / name).write_bytes(images.grid_png(x))
    return self

  def points(self, steps, **changes):
    density = data.load(self.config.dataset)
    for step in steps:
      arrays = {**snapshot(density, step), **changes}
      np.savez(self.path / 'samples' / f'step_{step:09d}.npz', **arrays)
    return self

  def page(self):
    return Page(report.write_report(self.path).read_text(encoding='utf-8'))


SECTIONS = ['samples', 'curves', 'repeat', 'configuration', 'environment']
CURVES = [
  "D's probability",
  'Losses',
  "D's output",
  'Value of the game',
  'Jensen-Shannon bound',
  'Gradient norms',
  'Parameter norms',
  'Speed',
]


def check(page):
  """What holds for every report."""
  assert [h['id'] for h in page.named('h2')] == SECTIONS
  # Nothing is fetched: all pictures are inside, and there is nothing else.
  assert not page.named('script') and not page.named('link')
  assert not re.search(r'url\(|@import', page.source)
  for _, attributes in page.tags:
    for name in ('src', 'href', 'srcset', 'data'):
      assert attributes.get(name, 'data:').startswith('data:')
  assert page.pictures is not None  # each decodes
  assert all(alt for alt, _ in page.pictures)
  assert [m['name'] for m in page.named('meta') if 'name' in m] == ['viewport']


def test_columns_of_classes_are_named_and_few(tmp_path):
  w = Workdir(tmp_path, True, [row(1)], dataset='digits')
  path = tmp_path / 'run.json'
  told = json.loads(path.read_text())
  names = [f'<{i}>' for i in range(1000)]
  told['dataset'] |= {'classes': names, 'class_counts': [20] * 1000}
  path.write_text(json.dumps(told))
  text = w.grids([200]).page().text
  assert 'Columns are 16 of 1,000 classes: <0>, <67>,' in text
  assert '<999>.' in text and '<500>' not in text


def test_image_run(tmp_path):
  rows = [row(s // 2) for s in range(curves.MANY + 1)]
  w = Workdir(tmp_path, True, rows, dataset='digits', lr_g=0.00123)
  page = w.grids(range(0, 201, 20)).page()
  check(page)
  alts = [alt for alt, _ in page.pictures]
  for title in CURVES:
    assert alts.count(title) == 1
  assert 'D: log 4' in svg_words(dict(page.pictures)['Losses'])
  for who in ('averaged G', 'live G'):
    assert alts.count(f'samples of the {who}') == 1
  # First, last but one (the newest is large), and a few between.
  for step in (0, 180):
    assert alts.count(f'samples at step {step}') == 2
  assert alts.count('samples at step 200') == 0
  shown = [a for a in alts if a.startswith('samples at step')]
  assert len(shown) == 2 * 6
  newest = (tmp_path / 'samples' / 'ema_000000200.png').read_bytes()
  assert base64.b64encode(newest).decode() in page.source
  for told in ('1 min 15 s', 'complete', '0.567', '0.433', '-1.386'):
    assert told in page.text
  for told in ('abc1234', 'f00d', '12,345', 'jax 0.10.2', 'cpu, cpu', '1,797'):
    assert told in page.text
  assert 'has not ended' not in page.text
  assert 'python -m gan_jax.train --dataset=digits' in page.text
  # What differs from the default comes first, and is marked.
  marked = page.source.split('class="set"')[1:]
  names = [re.search(r'"name">(\w+)', part)[1] for part in marked]
  assert {'steps', 'lr_g'} <= set(names) and 'lr_d' not in names
  assert page.text.index(' lr_g ') < page.text.index(' lr_d ')
  assert 'running mean' in page.text  # of so many rows
  for name in config_lib.FIELDS:
    assert f' {name} ' in page.text


def summary(rows, **changes):
  config = Config(steps=200)
  told = facts(config, True, **changes)
  return ' '.join(report.summarise_run(config, told, rows))


def test_the_bound_is_the_log_s():
  text = summary([row(100, -1.0), row(200, -0.6)])
  bound = (LOG4 - 0.6) / 2
  assert f'at least {bound:.3f} nats' in text and '-0.600' in text


def test_a_run_without_an_average(tmp_path):
  w = Workdir(tmp_path, True, ema_halflife_kimg=0.0)
  page = w.grids([0, 100], kinds=('step',)).page()
  check(page)
  assert 'live G' in page.text and 'averaged G' not in page.text


@pytest.mark.parametrize(
  'name', ['gaussian_1d', 'mixture_1d', 'ring', 'spiral']
)
def test_density_run(name, tmp_path):
  w = Workdir(tmp_path, False, dataset=name, network='mlp')
  steps = (0, 100, 200) if name in ('gaussian_1d', 'ring') else (200,)
  page = w.points(steps).page()
  check(page)
  alts = [alt for alt, _ in page.pictures]
  assert alts[1:] == [f'densities at step {s}' for s in steps]
  dim = data.load(name).dim
  large = dict(page.pictures)["the generated density against the data's"]
  if dim == 1:
    words = svg_words(large)
    for label in ('data p(x)', 'generated q(x)', 'D(x)', 'z', 'x'):
      assert label in words
    assert 'where G maps noise' in page.text
    assert 'Figure 1 of Goodfellow et al. 2014' in page.text
  else:
    shades = np.asarray(large.convert('RGB')).reshape(-1, 3)
    assert len(np.unique(shades, axis=0)) > 50
    assert 'around its modes' in page.text
  assert 'live G' in page.text and 'averaged G' in page.text
  with np.load(tmp_path / 'samples' / 'step_000000200.npz') as arrays:
    x = arrays['x']
  assert ', '.join(f'{m:.3f}' for m in x.mean(0)) in page.text
  assert ', '.join(f'{m:.3f}' for m in x.std(0)) in page.text
  if name == 'gaussian_1d':  # whose own moments are not those of samples
    assert re.search(r'data +4\.000 +1\.250', page.text)


def test_the_map_needs_one_dimension_of_noise(tmp_path):
  w = Workdir(tmp_path, False, dataset='gaussian_1d', network='mlp')
  found = snapshot(data.load('gaussian_1d'), 0, latent_dim=5)
  page = w.points([0], z=found['z'], x=found['x']).page()
  check(page)
  assert 'where G maps' not in page.text


def test_a_generator_that_collapsed(tmp_path):
  w = Workdir(tmp_path, False, dataset='gaussian_1d', network='mlp')
  check(w.points([0], x=np.full((200, 1), 4.0, np.float32)).page())


@pytest.mark.parametrize('name', ['digits', 'ring'])
def test_a_run_that_has_just_begun(name, tmp_path):
  told = {'outcome': 'running', 'step': 0, 'train_sec': 0.0}
  bounded = name == 'digits'
  page = Workdir(tmp_path, bounded, rows=[], told=told, dataset=name).page()
  check(page)
  assert 'has not ended' in page.text
  assert 'Nothing has been logged yet.' in page.text
  assert 'No samples have been written yet.' in page.text


def test_a_half_written_line_is_left_out(tmp_path):
  told = {'outcome': 'running'}
  w = Workdir(tmp_path, True, [row(20)], told, label_smoothing=0.1).grids([0])
  with open(tmp_path / 'stats.jsonl', 'a') as file:
    file.write('{"step": 400, "d/lo')
  page = w.page()
  assert 'has not ended' in page.text and len(page.pictures) > 7
  assert 'running mean' not in page.text
  losses = dict(page.pictures)['Losses']
  # A marker, where a line of one point would be nothing.
  assert 'use' in xml.etree.ElementTree.tostring(losses).decode()
  # And the equilibrium of other labels is not that of the papers.
  assert 'log 4' not in svg_words(losses)


@pytest.mark.parametrize(
  'outcome, said', [('saved', 'stopped by a signal'), ('diverged', '137')]
)
def test_a_run_that_was_saved_or_diverged(outcome, said):
  rows = [row(s) for s in range(0, 137, 20)]
  text = summary(rows, outcome=outcome, step=137)
  assert said in text and 'complete' not in text


def test_odd_words_are_only_words(tmp_path):
  odd = 'folder:/a/<script>alert(1)</script>&"\'{{ 7*7 }}'
  page = Workdir(tmp_path, True, dataset=odd).grids([0]).page()
  check(page)
  assert page.text.count(odd) >= 3  # title, summary, configuration
  assert '<script>' not in page.source


@pytest.mark.parametrize('count', [0, 1, 5, 6, 7, 100])
def test_what_is_chosen_evenly_keeps_both_ends(count):
  found = report.choose_evenly(range(count))
  assert found == sorted(set(found)) and len(found) == min(count, 6)
  if count:
    assert (found[0], found[-1]) == (0, count - 1)


def test_what_is_no_run_is_refused(tmp_path):
  with pytest.raises(ArgumentError, match='no run there'):
    report.write_report(tmp_path / 'none')
  for name in 'ab':
    (tmp_path / 'runs' / name).mkdir(parents=True)
    (tmp_path / 'runs' / name / 'config.flags').touch()
  with pytest.raises(ArgumentError, match=r'name one: .*/a or .*/b$'):
    report.write_report(tmp_path / 'runs')
  Workdir(tmp_path, True)
  (tmp_path / 'run.json').unlink()
  with pytest.raises(ArgumentError, match='run.json cannot be read'):
    report.write_report(tmp_path)
  (tmp_path / 'run.json').write_text('{"outcome":')
  with pytest.raises(ArgumentError, match='run.json cannot be read'):
    report.write_report(tmp_path)
  assert not (tmp_path / 'report.html').exists()


def test_an_older_report_survives_a_failure(tmp_path, monkeypatch):
  w = Workdir(tmp_path, True).grids([0])
  w.page()
  before = (tmp_path / 'report.html').read_bytes()

  def crash(*args):
    raise OSError('no space left')

  monkeypatch.setattr(os, 'replace', crash)
  with pytest.raises(Error, match='cannot write report.html.*no space left'):
    report.write_report(tmp_path)
  assert (tmp_path / 'report.html').read_bytes() == before
  assert not [p for p in tmp_path.iterdir() if 'report.html.' in p.name]


def test_command(tmp_path):
  Workdir(tmp_path, True).grids([0])
  done = commands.run('report', f'--workdir={tmp_path}')
  assert done.returncode == 0, done.stderr
  assert done.stdout.strip() == f'report: {tmp_path}/report.html'
  assert (tmp_path / 'report.html').is_file()


@pytest.mark.parametrize(
  'words, said',
  [
    ([], '--workdir=: name'),
    (['--workdir=nowhere'], '--workdir=nowhere: no run there'),
  ],
)
def test_command_refuses(words, said):
  done = commands.run('report', *words)
  assert done.returncode == 2
  assert said in done.stderr and 'Traceback' not in done.stderr


@pytest.mark.parametrize('name', ['gaussian_1d', 'ring'])
def test_a_run_that_diverged_shows_what_there_is(name, tmp_path):
  told = {'outcome': 'diverged', 'step': 120}
  w = Workdir(tmp_path, False, (), told, dataset=name, network='mlp')
  found = snapshot(data.load(name), 0)
  nowhere = {k: np.full_like(found[k], np.nan) for k in ('x', 'x_ema', 'prob')}
  check(w.points([120], **nowhere).page())
  text = summary([row(100, -1.0), row(120, math.nan)], **told)
  assert 'At step 100 D says' in text and '-1.000' in text


def test_no_probability_is_made_of_an_output_that_has_none():
  """Nor is waiting worth a word that took less than a second in all."""
  critic = Config(steps=200, objective='wasserstein')
  waited = row(200) | {'data/wait': 0.5, 'time/train_sec': 1.0}
  told = facts(critic, True, train_sec=1.0)
  text = ' '.join(report.summarise_run(critic, told, [waited]))
  assert 'D says' not in text and 'waited for data' not in text
  long = [waited | {'time/train_sec': 100.0}]
  text = ' '.join(report.summarise_run(critic, told, long))
  assert 'waited for data during 50%' in text


def test_a_continued_run_is_as_far_as_its_log():
  """run.json still says where it was stopped."""
  told = {'outcome': 'running', 'step': 60, 'train_sec': 6.0}
  text = summary([row(200)], **told)
  assert '200 of 200 steps, 20 s of training' in text
  assert 'At step 200 D says' in text


def test_pictures_stand_under_the_name_of_their_generator(tmp_path):
  (tmp_path / 'samples').mkdir()
  for kind, grey in (('step', 0), ('ema', 200)):
    path = tmp_path / 'samples' / f'{kind}_000000004.png'
    PIL.Image.new('L', (4, 4), grey).save(path)
  shown = report._draw_grids(tmp_path)['kinds']
  assert [kind['title'] for kind in shown] == ['averaged G', 'live G']
  for kind, name in zip(shown, ('ema', 'step')):
    content = (tmp_path / f'samples/{name}_000000004.png').read_bytes()
    assert kind['newest'].endswith(base64.b64encode(content).decode())
