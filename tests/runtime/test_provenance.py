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
