"""Dirac-GAN: the package's steps and instruments against closed forms.

`experiments/dirac/theory.py` knows in float64 NumPy what every objective,
regularizer and schedule does there, in closed form or, of an objective or a
penalty that it does not list, by differences of what that says of itself.
"""

import importlib
import math
import pathlib
import sys

import numpy as np
import pytest

from gan_jax.game.objectives import OBJECTIVES
from gan_jax.game.regularizers import REGULARIZERS
from gan_jax.game.schedules import SCHEDULES

FOLDER = pathlib.Path(__file__).parents[2] / 'experiments' / 'dirac'


def _load(name):
  sys.path.insert(0, str(FOLDER))
  try:
    return importlib.import_module(name)
  finally:
    sys.path.remove(str(FOLDER))


theory, play = _load('theory'), _load('play')
SLOW = {'alternating_g_first', 'extragradient', 'consensus', 'unrolled'}
EVERY = pytest.mark.parametrize(
  'schedule',
  [
    pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [])
    for name in SCHEDULES
  ],
)
POINTS = (0.3, -1.2), (-0.7, 0.4), (1.1, 1.3)  # theta, psi; no penalty's kink


@pytest.mark.parametrize('name', theory.OBJECTIVES)
def test_differences_of_an_objective_are_its_closed_form(name):
  found, listed = (
    theory.slopes_of(OBJECTIVES[name]().reference),
    theory.OBJECTIVES[name],
  )
  for t in (0.0, 0.4, -0.9):
    for mine, other in zip(found[:4], listed[:4]):
      assert mine(t) == pytest.approx(other(t), rel=1e-6, abs=1e-6)
  assert found.curvature == pytest.approx(listed.curvature, rel=0.02, abs=1e-4)


@pytest.mark.parametrize('name', sorted(theory.PENALTIES.keys() - {'none'}))
def test_differences_of_a_penalty_are_its_closed_form(name):
  found = theory.penalty_of(REGULARIZERS[name]().dirac)
  for point in POINTS:
    for mine, other in zip(found, theory.PENALTIES[name]):
      assert mine(*point) == pytest.approx(other(*point), abs=1e-6)


def compared(schedule, steps, **numbers):
  """The farthest that any game is from the integrator, and which."""
  # The field's length pulls some so hard that they are out at once.
  start = np.array(play.START) / (3 if schedule == 'consensus' else 1)
  settings = {}
  for name in ('d_steps', 'g_steps'):
    if name in numbers:
      settings[name] = numbers[name]
  rates = {k: v for k, v in numbers.items() if k.startswith('rate')}
  found = play.trajectories(
    play.SETTINGS, schedule, steps, tuple(start), rates=rates, **settings
  )
  worst = 0.0, None
  for setting, points in zip(play.SETTINGS, found):
    expected = theory.trajectory(
      setting.game(**numbers), schedule, tuple(start), steps, limit=3.0
    )
    assert len(expected) > 5, setting
    away = np.abs(points[: len(expected)] - expected).max()
    worst = max(worst, (float(away), setting), key=lambda x: x[0])
  return worst


@EVERY
def test_steps_are_those_of_the_integrator(schedule):
  """Every objective with every regularizer, 60 steps, to 1e-5."""
  if schedule not in theory.SCHEDULES:
    pytest.skip(f'no integrator of {schedule} in experiments/dirac/theory.py')
  away, which = compared(schedule, 60)
  assert away < 1e-5, which


@pytest.mark.slow
@pytest.mark.parametrize(
  'schedule', ['alternating', 'alternating_g_first', 'unrolled']
)
def test_several_moves_and_two_time_scales(schedule):
  away, which = compared(
    schedule, 40, d_steps=3, g_steps=2, rate_g=0.05, rate_d=0.1
  )
  assert away < 1e-5, which


@pytest.mark.parametrize(
  'schedule',
  ['simultaneous', pytest.param('consensus', marks=pytest.mark.slow)],
)
def test_jacobian_at_the_equilibrium(schedule):
  """Every objective with every regularizer that has a slope there."""
  weight = play.CONSENSUS if schedule == 'consensus' else 0.0
  found = play.jacobians(play.SETTINGS, schedule)
  for setting, matrix in zip(play.SETTINGS, found):
    if setting.damping is not None:
      expected = theory.jacobian(setting.slopes, setting.damping, weight)
      np.testing.assert_allclose(matrix, expected, atol=1e-5, err_msg=setting)


@pytest.mark.slow
def test_instance_noise_damps_by_the_curvature():
  """-s^2 times the curvatures of both losses: to the spread of 256 samples."""
  settings = play.noisy()
  for setting, matrix in zip(settings, play.jacobians(settings)):
    damping = setting.slopes.curvature * play.NOISE**2
    expected = theory.jacobian(setting.slopes, damping)
    np.testing.assert_allclose(
      matrix, expected, rtol=0.25, atol=1e-6, err_msg=setting
    )


def test_theory_is_that_of_the_paper():
  plain = theory.OBJECTIVES['minimax']
  for g in (0.0, 0.5, 1.0, 3.0):
    root = np.sqrt(complex(g**2 / 4 - 1 / 4))
    np.testing.assert_allclose(
      theory.eigenvalues(theory.jacobian(plain, g)),
      [-g / 2 - root, -g / 2 + root],
    )
  for h in (0.1, 0.4):
    game = theory.Dirac(plain, rate_g=h, rate_d=h)
    grown = math.sqrt(1 + h**2 / 4)
    assert theory.modulus(game, 'simultaneous') == pytest.approx(grown)
    assert theory.modulus(game, 'alternating') == pytest.approx(1)
    assert theory.modulus(game, 'alternating_g_first') == pytest.approx(1)
    for name in ('optimistic', 'extragradient', 'unrolled'):
      assert theory.modulus(game, name) < 1, name


@pytest.mark.parametrize('schedule', sorted(theory.SCHEDULES))
@pytest.mark.parametrize('regularizer', ['none', 'r1', 'zero_centred', 'lecam'])
def test_a_step_matrix_is_the_slope_of_the_integrator(schedule, regularizer):
  """The closed forms of the schedules, by a small step from the equilibrium."""
  for objective in ('non_saturating', 'fgan_kl', 'relativistic_average_ls'):
    game = play.Setting(objective, regularizer).game(
      rate_g=0.05, d_steps=2, g_steps=1
    )
    small, columns = 1e-6, []
    for start in np.eye(2) * small:
      memory = None
      if schedule == 'optimistic':  # as if it had been here before
        memory = game.gradients(*start)
      step = theory.SCHEDULES[schedule](game, *start, memory)
      columns.append(np.array(step[:2]) / small)
    found = np.stack(columns, axis=-1)
    matrix = theory.step_matrix(game, schedule)
    if schedule == 'optimistic':
      matrix = matrix[:2, :2] + matrix[:2, 2:]
    np.testing.assert_allclose(found, matrix, atol=1e-5, err_msg=objective)


@pytest.mark.slow
def test_radius_grows_and_shrinks_as_the_paper_says():
  """By the package's steps: outward at once, round in turn, inward with R1."""
  h, steps = play.RATE, 1000
  near = 1e-3, 0.0

  def radius(setting, schedule):
    points = play.trajectories([setting], schedule, steps, near)[0]
    return np.hypot(*np.float64(points).T) / near[0]

  plain = play.Setting('minimax')
  factor = math.sqrt(1 + h**2 / 4)
  np.testing.assert_allclose(
    radius(plain, 'simultaneous')[-1], factor**steps, rtol=1e-2
  )
  orbit = radius(plain, 'alternating')
  assert 0.9 < orbit.min() and orbit.max() < 1.1
  assert radius(plain._replace(regularizer='r1'), 'simultaneous')[-1] < 1e-9
