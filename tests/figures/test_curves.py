"""Curves of a run: the log's values, named levels, nothing where nothing is."""

import base64
import math
import re
import xml.etree.ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pytest
from helpers.htmlpage import svg_words

from gan_jax.figures import curves
from gan_jax.figures.columns import Columns


def row(step, value=-1.2):
  return {'step': step, 'd/loss': -value, 'g/loss': 0.7, 'game/value': value}


def picture(rows, title, equilibrium=None):
  """The SVG of one curve."""
  uris = {t: uri for t, _, uri in curves.curves(rows, equilibrium or {})}
  return base64.b64decode(uris[title].split(',')[1]).decode()


def points(svg):
  """The points of D's line, in pixels."""
  (path,) = re.findall(r'<path d="([^"]+)"[^>]*stroke: #1f5fbf', svg)
  pairs = re.findall(r'[ML] ([\d.]+) ([\d.]+)', path)
  return [(float(x), float(y)) for x, y in pairs]


def test_smoothed_is_a_mean_of_neighbours():
  values = [0.0, 3.0, 6.0, 0.0, 6.0]
  np.testing.assert_allclose(
    curves.smoothed(values, 3), [1.5, 3.0, 3.0, 4.0, 3.0]
  )


def test_a_curve_has_the_shape_of_the_log():
  rows = [row(s, value) for s, value in ((0, -1.4), (10, -1.0), (20, -1.2))]
  (x0, y0), (x1, y1), (x2, y2) = points(picture(rows, 'Value of the game'))
  assert x1 - x0 == pytest.approx(x2 - x1, rel=1e-3)
  assert (y0 - y2) / (y0 - y1) == pytest.approx(0.5, rel=1e-3)


def test_values_that_are_not_finite_are_left_out():
  rows = [row(0), row(1, math.nan), row(2, math.inf), row(3)]
  assert len(points(picture(rows, 'Value of the game'))) == 2


def test_equilibria_are_named_as_in_the_papers():
  levels = {'d/loss': math.log(4), 'g/loss': -math.log(2)}
  svg = picture([row(0), row(1)], 'Losses', levels)
  words = svg_words(xml.etree.ElementTree.fromstring(svg))
  assert 'D: log 4' in words and 'G: -log 2' in words


@pytest.fixture
def drawn(monkeypatch):
  """The axes of every picture, in order."""
  shown = []

  def uri(figure, kind):
    shown.append(figure.axes[0])
    plt.close(figure)
    return ''

  monkeypatch.setattr(curves, 'uri', uri)
  return shown


def scored(step, value, ema=True):
  protocol = dict(samples=9, real_samples=9, ema=ema, reference='ring')
  return {
    'step': step,
    'fid': value,
    'fid/evaluation_std': 0.5,
    'by_evaluation_seed': {'fid': [value]},
    'protocol': protocol | {'features': ''},
  }


def test_scores_are_a_line_for_each_protocol_in_the_order_of_steps(drawn):
  """Of two rows of a step the later one is of the state that is there."""
  rows = [scored(6, 3.0), scored(3, 9.0), scored(3, 5.0), scored(3, 7.0, False)]
  ((title, caption, _),) = curves.scores([*rows, {'step': None}])
  assert title == 'fid' and 'averaged G' in caption and 'live G' in caption
  averaged, live = (line.get_xydata().tolist() for line in drawn[0].lines[::3])
  assert averaged == [[3, 5.0], [6, 3.0]] and live == [[3, 7.0]]


def test_later_eigenvalues_are_the_darker(drawn):
  rows = [
    {'step': i, 'eigenvalues': [[float(i), 1.0]], 'parameters': 1}
    for i in range(4)
  ]
  curves.dynamics(rows)
  dots = drawn[0].collections[:4]
  assert [d.get_offsets()[0][0] for d in dots] == [0, 1, 2, 3]
  light = [d.get_facecolor()[0][:3].sum() for d in dots]
  assert light == sorted(light, reverse=True) and light[0] > light[-1]


def test_what_is_no_number_is_no_point():
  rows = [(1, math.inf), (2, 1.0), (3, math.nan), (4, None), (5, 3)]
  logged = [{'step': step, 'x': x} for step, x in rows]
  assert Columns([*logged, {'step': 6}]).series('x') == ([2, 5], [1.0, 3])
