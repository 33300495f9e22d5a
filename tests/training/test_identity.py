"""What makes a run another: a line for each difference, or a warning."""

import pytest
from helpers import small

from gan_jax.runtime import multihost
from gan_jax.runtime.errors import IdentityError
from gan_jax.training import identity, train

SAVED = {
  'declared': {'objective': 'hinge', 'seed': 0},
  'data': 'abc',
  'data_name': 'ring',
  'numerics': {},
  'versions': {'jax': '1'},
  'program': 'p',
}


def test_the_same_is_the_same():
  assert identity.check('a', SAVED, dict(SAVED)) == ''


@pytest.mark.parametrize(
  ('change', 'line'),
  [
    ({'declared': {'objective': 'hinge', 'seed': 1}}, 'seed: 0 there, 1 now'),
    ({'declared': {'objective': 'hinge'}}, 'seed: 0 there, nothing now'),
    (
      {'data': 'abd', 'data_name': 'grid'},
      'data: ring abc there, grid abd now',
    ),
    ({'program': 'q'}, 'program: the step is another one'),
    ({'given': 'mine'}, "identity: '' there, 'mine' now"),
  ],
)
def test_a_difference_has_a_line(change, line):
  with pytest.raises(IdentityError, match='a: holds another run') as caught:
    identity.check('a', SAVED, SAVED | change)
  assert f'\n  {line}' in str(caught.value)


def test_programs_of_other_versions_are_not_compared():
  """Theirs is another text of what may be the same step."""
  now = SAVED | {'program': 'q', 'versions': {'jax': '2'}}
  assert identity.check('a', SAVED, now).startswith('a: was begun with other')
  # What is said is compared all the same.
  with pytest.raises(IdentityError, match='data: ring abc there'):
    identity.check('a', SAVED, now | {'data': 'abd'})
  assert identity.check('a', SAVED, SAVED | {'versions': {'jax': '2'}}) == ''


def test_processes_that_differ_do_not_begin(monkeypatch, tmp_path):
  config = small.ring(workdir=str(tmp_path))
  train._check_identity(config, SAVED)
  monkeypatch.setattr(multihost, 'all_equal', lambda text: text != 'p')
  with pytest.raises(IdentityError, match='have traced different steps'):
    train._check_identity(config, SAVED)
