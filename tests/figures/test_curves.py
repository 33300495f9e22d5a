"""Curves of a run: the log's values, named levels, nothing where nothing is."""

import base64
import math
import re
import xml.etree.ElementTree

import numpy as np
import pytest
from helpers.htmlpage import svg_words

from gan_jax.figures import curves


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
