"""How much is dispatched at a time: boundaries, room, and the clock."""

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from gan_jax.runtime import multihost
from gan_jax.training import dispatch
from gan_jax.training.dispatch import Pace, next_boundary

ONE = {'x': np.zeros((1, 2, 3), np.float32), 'i': np.zeros((1, 2), np.int32)}


@pytest.mark.parametrize(
  'step, cadences, expected',
  [
    (0, (5, 7), 5),
    (5, (5, 7), 7),  # one that is reached counts from there
    (14, (5, 7, 0), 15),  # 0: never
    (19, (5, 7), 20),
    (20, (50, 0), 23),  # the end is one, whatever the cadences
  ],
)
def test_a_dispatch_ends_where_something_is_written(step, cadences, expected):
  assert next_boundary(step, 23, cadences) == expected


def test_capacity_is_of_bytes_or_of_steps():
  size = sum(x.nbytes for x in ONE.values())
  assert Pace(ONE).capacity == dispatch.MOST_STEPS
  copies = dispatch.MOST_BYTES // (100 * size)
  assert Pace(ONE, copies).capacity == 100
  assert Pace({'x': np.zeros(dispatch.MOST_BYTES + 1, np.int8)}).capacity == 1
  assert (
    Pace({}).capacity == dispatch.MOST_STEPS
  )  # a density is drawn on device


def test_a_dispatch_lasts_its_time_and_grows_by_doubling():
  pace = Pace(ONE)
  assert pace.count() == 1
  for count in (1, 3, 7, 15):
    pace.learn(1e-9, count, count)
    assert pace.count() == 2 * count + 1
  pace.learn(15 * dispatch.SECONDS / 10, 15, 15)
  assert pace.count() == 10
  assert pace.count(most=4) == 4
  pace.learn(100.0, 1, 10)  # longer than it should: still a step
  assert pace.count() == 1
  pace.wanted = 1e9
  assert pace.count() == pace.count(10**9) == dispatch.MOST_STEPS
  pace.learn(1.0, 0, 1)  # made none: no division by it
  assert pace.count() == 1


def test_no_dispatch_has_more_steps_than_data_were_made_for():
  """And data of few more than it has, once the pace is found."""
  pace = Pace(ONE)
  counts, made = [], pace.capacity
  for _ in range(12):
    count = pace.count()
    assert count <= made
    made = pace.reserve(count)
    pace.learn(count * 0.01, count, count)  # 50 steps in half a second
    counts.append(count)
  assert counts[:6] == [1, 3, 7, 15, 31, 50] and counts[-1] == 50
  assert made == 63
  pace.learn(0.5, 1, 1)  # they have become slow
  assert pace.count() == 1 and pace.reserve(1) == 2


def test_room_has_the_data_first_and_zeros_behind(monkeypatch):
  monkeypatch.setattr(dispatch, 'MOST_STEPS', 4)
  chunk = {'x': np.ones((3, 2), np.uint8), 'y': np.full((3, 1), 2.5)}
  other = jax.tree.map(lambda x: 2 * x, chunk)
  found = Pace(ONE).pad(c for c in (chunk, other))
  assert found['x'].shape == (2, 4, 2) and found['x'].dtype == np.uint8
  assert found['y'].shape == (2, 4, 1)
  np.testing.assert_array_equal(
    found['x'][:, :, 0], [[1, 1, 1, 0], [2] * 3 + [0]]
  )
  np.testing.assert_array_equal(found['y'][1, :, 0], [5, 5, 5, 0])


def test_processes_take_the_least_and_stop_together(monkeypatch):
  assert multihost.agree_on_dispatch(False, 9) == (False, 9)
  received = []

  def gathered(mine):
    received.append(mine.tolist())
    return np.stack([mine, [1, 5]])

  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(multihost_utils, 'process_allgather', gathered)
  assert multihost.agree_on_dispatch(False, 9) == (True, 5)
  assert received == [[0, 9]]


def test_a_dispatch_that_ended_early_tells_of_the_steps_it_made():
  pace = Pace({'x': np.zeros(1)})
  pace.learn(1.0, 4, 100)  # a quarter of a second each
  assert pace.wanted == 2
