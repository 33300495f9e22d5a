"""A run that is looked at by the instruments: what it logs and draws."""

import base64
import dataclasses
import html
import json
import re

import jax
import numpy as np
import pytest
from helpers.quadratic import THETA, X, Z, quadratic
from helpers.small import ring

from gan_jax.game import dynamics
from gan_jax.training import dynamics_log, setup, writers
from gan_jax.training.train import train_config


class Known(setup.Setup):
  """Of a game whose real samples are what it is handed."""

  def real_batch(self, constants, item, state):
    return item


def test_a_look_logs_the_mean_and_the_steepest_of_known_slopes():
  trainer, state, real = quadratic()
  made = vars(setup.build(RUN)) | dict(trainer=trainer)
  fields = {f.name: made[f.name] for f in dataclasses.fields(setup.Setup)}
  row = dynamics_log.Instruments(Known(**fields))(state, None, real)
  a, b, c, w = THETA
  for place, at in (('real', X), ('fake', a * Z + b)):
    sizes = np.abs(2 * c * at + w)
    for name, expected in (('', sizes.mean()), ('_max', sizes.max())):
      found = row[f'd/input_grad_{place}{name}']
      np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=place)


RUN = ring(width=5, log_every=6, sample_every=12, dynamics_every=5, report=True)
NAMES = {
  'game/field_norm',
  'game/alignment',
  'game/rotation',
  'game/rightmost',
  'game/spectral_radius',
  'd/input_grad_real',
  'd/input_grad_fake',
  'd/input_grad_real_max',
  'd/input_grad_fake_max',
}


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A run that was looked at, and its folder."""
  folder, cache = (tmp_path_factory.mktemp(n) for n in ('run', 'xla'))
  config = dataclasses.replace(
    RUN, workdir=str(folder), compilation_cache=str(cache)
  )
  train_config(config)
  return config, folder


def inside(found, spectrum, rtol=5e-3):
  """Whether each found value is one of a spectrum."""
  away = np.abs(np.asarray(found)[:, None] - np.asarray(spectrum)[None])
  return bool((away.min(1) <= rtol * np.abs(found)).all())


def looks(folder):
  return writers.read_rows(folder / 'dynamics.jsonl')


def test_a_run_logs_what_the_instruments_say(run):
  _, folder = run
  rows = looks(folder)
  assert [row['step'] for row in rows] == [0, 5, 10, 12]
  for row in rows:
    assert NAMES <= row.keys()
    values = np.array(row['eigenvalues']) @ [1, 1j]
    assert len(values) == row['parameters']
    assert row['game/rightmost'] == pytest.approx(values.real.max())
    assert row['game/spectral_radius'] == pytest.approx(abs(values[0]))
    assert (np.diff(abs(values)) <= 0).all()
  assert len({row['game/field_norm'] for row in rows}) == 4


def test_a_continued_log_forgets_looks_at_what_was_not_saved(tmp_path):
  log = writers.Log(tmp_path, 0)
  for step in (0, 5, 10):
    log.write(
      {'step': step, 'game/rightmost': 0.5, 'eigenvalues': []}, 'dynamics'
    )
  log.close()
  writers.Log(tmp_path, 5).close()
  assert [row['step'] for row in looks(tmp_path)] == [0, 5]


def test_a_report_draws_them(run):
  _, folder = run
  page = html.unescape((folder / 'report.html').read_text())
  for title in (
    'Eigenvalues',
    'Stability',
    'Spectral radius',
    'Rotation',
    'Norm of the field',
    "D's slope",
  ):
    assert title in page
  pictures = [
    base64.b64decode(one)
    for one in re.findall(r'svg\+xml;base64,([^"]+)', page)
  ]
  # One picture a title, each with its axis, besides those of every run.
  on_dynamics = page[: page.index('Eigenvalues')].count('svg+xml;base64')
  assert sum(b'>steps<' in one for one in pictures[on_dynamics:]) >= 5


def test_a_larger_game_is_looked_at_by_its_leading_eigenvalues(
  run, monkeypatch
):
  """At the start of the run, which nobody has moved yet: the same numbers."""
  config, folder = run
  built = setup.build(config)
  monkeypatch.setattr(dynamics_log, 'DENSE', 10)
  state = built.init()
  item = jax.tree.map(lambda x: x[0, 0], built.feed.chunk(0, 1))
  row = dynamics_log.Instruments(built)(state, built.feed.constants, item)
  full = looks(folder)[0]
  assert 4 <= len(row['eigenvalues']) < 20 < len(full['eigenvalues'])
  for name in NAMES - {'game/rightmost'}:
    assert row[name] == pytest.approx(full[name], rel=2e-3), name
  values, whole = (np.array(r['eigenvalues']) @ [1, 1j] for r in (row, full))
  assert inside(values, whole)
  json.dumps(row, allow_nan=False)


def test_numbers_of_an_unfinished_search_are_left_out(run, monkeypatch):
  config, _ = run
  built = setup.build(config)
  values = np.array([3 + 4j, -1])
  partial = dynamics.Leading(values, values, unfinished=('rightmost',))
  instrument = dynamics_log.Instruments(built)
  monkeypatch.setattr(instrument, '_eigenvalues', lambda at, size: partial)
  item = jax.tree.map(lambda x: x[0, 0], built.feed.chunk(0, 1))
  row = instrument(built.init(), built.feed.constants, item)
  assert 'game/rightmost' not in row
  assert row['game/spectral_radius'] == pytest.approx(5.0)
  assert row['unfinished'] == ['rightmost']
  assert row['eigenvalues'] == [[3.0, 4.0], [-1.0, 0.0]]
