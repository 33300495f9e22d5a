"""Classes are asked for as often as the data has them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.toygame import net

from gan_jax import networks as networks_lib
from gan_jax.config import resolve
from gan_jax.game import game as game_lib
from gan_jax.game import objectives
from gan_jax.game.classes import (
  describe_sampling,
  draw_classes,
  numbered_classes,
)
from gan_jax.game.game import Game
from gan_jax.game.sampler import Sampler
from gan_jax.runtime.errors import ArgumentError

# The last ones have an empty class at an end, which no draw may hit.
COUNTS = [(9, 1), (1, 2, 3, 4), (5, 0, 5), (0, 1, 999), (7, 1, 0, 0)]


def labelled(classes, counts=()):
  g = net({}, lambda p, z, label: jnp.float32(label)[:, None])
  d = net({}, lambda p, x, label: x[:, 0] * label)
  return networks_lib.Networks(
    g, d, 1, (1,), classes=classes, class_counts=counts
  )


@pytest.mark.parametrize('counts', COUNTS)
def test_training_draws_by_the_datas_proportions(counts):
  n, networks = 20_000, labelled(len(counts), counts)
  game = Game(networks, objective=objectives.non_saturating)
  draws = jax.jit(lambda key: game_lib.draw(game, n, key).label)
  label = np.asarray(draws(jax.random.key(0)))
  share = np.array(counts) / sum(counts)
  seen = np.bincount(label, minlength=len(counts)) / n
  assert label.dtype == np.int32
  assert (seen[share == 0] == 0).all()
  assert (np.abs(seen - share) < 5 * np.sqrt(share * (1 - share) / n)).sum() + (
    share == 0
  ).sum() == len(counts)
  # Independently: neighbours are alike as often as chance has it.
  alike = (label[1:] == label[:-1]).mean()
  assert abs(alike - (share**2).sum()) < 0.02


def test_training_draws_evenly_without_counts():
  label = np.asarray(draw_classes(labelled(4), jax.random.key(0), 8000))
  assert np.abs(np.bincount(label) / 8000 - 0.25).max() < 0.03


@pytest.mark.parametrize('counts', COUNTS)
def test_numbered_samples_have_their_shares_at_any_number(counts):
  """Of any samples in a row, each class has its share but for a few."""
  number = jnp.arange(60_000)
  label = np.asarray(numbered_classes(len(counts), counts, number))
  share = np.array(counts) / sum(counts)
  taken = np.eye(len(counts))[label].cumsum(axis=0)
  for start, count in ((0, 50), (0, 10_000), (137, 1000), (50_000, 9_999)):
    before = taken[start - 1] if start else 0
    seen = taken[start + count - 1] - before
    assert np.abs(seen - count * share).max() < 8
  assert (taken[-1][share == 0] == 0).all()


def test_the_sampler_asks_as_the_networks_say():
  counts = (9, 1)
  sampler = Sampler(labelled(2, counts), batch=64)
  x = np.concatenate(list(sampler.batches({}, {}, 0, 200)))[:, 0]
  expected = numbered_classes(2, counts, jnp.arange(200))
  np.testing.assert_array_equal(x, expected)
  assert abs(x.sum() - 20) <= 2


@pytest.mark.parametrize(
  'classes, counts, message',
  [
    (2, (1, 2, 3), 'use 2 whole numbers'),
    (2, (0, 0), 'use 2 whole numbers'),
    (2, (-1, 2), 'use 2 whole numbers'),
    (0, (1, 2), 'the networks have no classes'),
  ],
)
def test_counts_of_no_use_are_refused(classes, counts, message):
  networks = labelled(2)._replace(classes=classes, class_counts=counts)
  with pytest.raises(ArgumentError, match=f'`class_counts=.*`: {message}'):
    Game(networks, objective=objectives.non_saturating)


def test_a_protocol_tells_how_classes_were_drawn():
  assert describe_sampling(0, ()) == {}
  assert describe_sampling(2, ()) == {'class_sampling': 'uniform'}
  told = [describe_sampling(2, counts) for counts in ((9, 1), (1, 9), (5, 5))]
  assert {each['class_sampling'] for each in told} == {'data'}
  assert len({each['class_counts'] for each in told}) == 3


def test_a_trainer_from_options_takes_counts():
  options = dict(classes=2, network='mlp', conditioning='projection')
  shape = (8, 8, 1)

  def counts(**more):
    trainer = resolve.make_trainer(shape, **options, **more)
    return trainer.game.networks.class_counts

  assert counts() == ()
  assert counts(class_counts=[9, 1]) == (9, 1)
  assert counts(class_sampling='uniform') == ()
  with pytest.raises(ArgumentError, match='`class_counts=.*have no effect'):
    counts(class_counts=[9, 1], class_sampling='uniform')
  with pytest.raises(
    ArgumentError, match='`class_sampling=data`: give `class_'
  ):
    counts(class_sampling='data')
