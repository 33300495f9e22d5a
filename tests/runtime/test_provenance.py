"""Where a result comes from: what is recorded beside it."""

import datetime
import time

from gan_jax.runtime import provenance


def test_times_are_of_the_clock_of_all_machines(monkeypatch):
  monkeypatch.setenv('TZ', 'Asia/Tokyo')
  time.tzset()
  try:
    said = datetime.datetime.fromisoformat(provenance.now())
  finally:
    monkeypatch.undo()
    time.tzset()
  assert said.utcoffset() == datetime.timedelta(0) and not said.microsecond
  assert abs(said.timestamp() - time.time()) < 60


def test_a_commit_says_whether_something_was_changed_since(monkeypatch):
  answers = {'status': '', 'rev-parse': '0123456789abcdef'}
  monkeypatch.setattr(provenance, '_git', lambda word, *_: answers[word])
  assert provenance.commit() == '0123456789ab'
  answers['status'] = ' M gan_jax/train.py'
  assert provenance.commit() == '0123456789ab-dirty'

  def no_git(*words):
    raise FileNotFoundError('git')

  monkeypatch.setattr(provenance, '_git', no_git)
  assert provenance.commit() is None


def test_a_machine_is_told_by_what_computes():
  here = provenance.machine()
  assert here['devices'] == ['cpu'] and here['processor']
  assert provenance.machine_difference(here, here) == ''
  assert provenance.machine_difference(None, here) == ''  # not recorded
  other = here | {'processor': 'Z80', 'driver': '1'}
  said = provenance.machine_difference(other, here)
  mine = here['processor']
  assert said == f'driver: 1 there, none now; processor: Z80 there, {mine} now'
