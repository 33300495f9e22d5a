"""Goodput by a clock that is set by hand."""

import json

import pytest

from gan_jax.training import goodput


class Clock:
  now = 100.0

  def __call__(self):
    return self.now

  def spend(self, ledger, part, seconds):
    with ledger.spend(part):
      self.now += seconds


@pytest.fixture
def clock():
  return Clock()


def test_each_second_is_of_one_part(clock):
  ledger = goodput.Ledger(age=3.0, clock=clock)
  clock.now += 4
  clock.spend(ledger, 'compile', 10)
  clock.now += 1
  ledger.started()
  with ledger.spend('train'):
    clock.now += 30
    clock.spend(ledger, 'data', 6)  # within a step, and none of it
    clock.now += 4
  clock.now += 2
  with ledger.spend('checkpoint'):
    clock.now += 5
    kept = ledger.train  # as it is saved, in the midst of something
  assert kept == 34
  facts = ledger.facts()
  seconds = {k: s for k, s in facts['seconds'].items() if s}
  assert seconds == {
    'train': 34,
    'compile': 10,
    'data': 6,
    'checkpoint': 5,
    'start': 8,
    'other': 2,
  }
  assert facts['allocated_sec'] == sum(seconds.values()) == 65
  assert facts['goodput'] == round(34 / 65, 4)
  assert facts['attempts'] == 1


def test_what_a_kill_cost_is_told_over_all_restarts(clock):
  first = goodput.Ledger(clock=clock)
  clock.spend(first, 'train', 20)
  saved = first.train
  clock.spend(first, 'train', 7)
  written = json.loads(json.dumps(first.facts()))
  clock.spend(first, 'train', 50)  # and killed: nobody wrote this down

  second = goodput.Ledger(written, clock=clock)
  clock.now += 9
  second.kept(saved)
  second.started()
  clock.spend(second, 'train', 30)
  facts = second.facts()
  seconds = {k: s for k, s in facts['seconds'].items() if s}
  assert seconds == {'train': 50, 'lost': 7, 'restart': 9}
  assert facts['attempts'] == 2 and facts['allocated_sec'] == 66


def test_a_checkpoint_may_be_newer_than_what_was_written(clock):
  written = {'attempts': 1, 'seconds': {'train': 5.0}}
  ledger = goodput.Ledger(written, clock=clock)
  ledger.kept(8.0)
  assert ledger.seconds()['lost'] == 0 and ledger.train == 8


def test_the_spread_is_of_steps_not_of_dispatches():
  spread = goodput.Spread()
  spread.add(0.001, 90)
  spread.add(0.2, 9)
  spread.add(7.0, 1)
  facts = spread.facts()
  assert facts['median'] == pytest.approx(0.001, rel=0.011)
  assert facts['p90'] == pytest.approx(0.001, rel=0.011)
  assert facts['most'] == pytest.approx(7.0, rel=0.011)
  spread.add(0.2, 1)
  assert spread.quantile(0.9) == pytest.approx(0.2, rel=0.011)


def test_the_age_of_a_process_is_that_of_this_one():
  assert 0 < goodput.process_age() < 86_400
