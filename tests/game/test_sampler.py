"""The sampler: sample i is a function of the seed and of i."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers.toygame import mlp, net

from gan_jax import networks
from gan_jax.game.classes import classes_in_turn, lay_out
from gan_jax.game.sampler import Sampler
from gan_jax.runtime import sharding


def started():
  nets = mlp()
  return nets, nets.generator.init(jax.random.key(0))


def test_neither_batch_nor_devices_have_a_say():
  nets, (params, stats) = started()
  mesh = sharding.make_mesh(2)
  found = []
  for sampler in (
    Sampler(nets, batch=4),
    Sampler(nets, batch=10),
    Sampler(nets, mesh, batch=6),
  ):
    rows = list(sampler.batches(params, stats, 3, 10))
    found.append(np.concatenate(rows))
    assert [len(x) for x in rows[:-1]] == [sampler.batch] * (len(rows) - 1)
  assert found[0].shape == (10, 2) and found[0].dtype == np.float32
  for other in found[1:]:
    np.testing.assert_allclose(other, found[0], rtol=1e-6)
  assert len(np.unique(found[0], axis=0)) == 10


def test_numbered_samples_are_those_of_their_noise():
  nets, (params, stats) = started()
  sampler = Sampler(nets)
  key = jax.random.key(3)
  x = sampler.numbered(params, stats, key, 4, 3)
  z = sampler.latent(jax.random.clone(key), jnp.arange(4, 7))
  expected, _ = nets.generator.apply(params, stats, z, train=False)
  np.testing.assert_allclose(x, expected, rtol=1e-5)
  np.testing.assert_allclose(sampler.generate(params, stats, z), x, rtol=1e-6)


def test_classes_come_in_turn_unless_they_are_given():
  g = net({}, lambda p, z, label: jnp.float32(label)[:, None])
  d = net({}, lambda p, x, label: x[:, 0])
  sampler = Sampler(networks.Networks(g, d, 1, (1,), classes=3), batch=4)

  def labels(**given):
    rows = sampler.batches({}, {}, 0, 7, **given)
    return np.concatenate(list(rows))[:, 0].tolist()

  assert labels() == [0, 1, 2, 0, 1, 2, 0]
  given = np.array([2, 2, 0, 1, 1, 1, 2], np.int32)
  assert labels(label=given) == given.tolist()
  assert classes_in_turn(5, 3).tolist() == [0, 1, 2, 0, 1]
  assert classes_in_turn(5, 0) is None


def test_a_grid_of_very_many_classes_shows_some_in_columns_or_all():
  label, columns = lay_out(7, 3)
  assert label.tolist() == [0, 1, 2, 0, 1, 2, 0] and columns == 3
  label, columns = lay_out(64, 1000)
  assert columns == 16 and len(label) == 64
  assert (label.reshape(-1, columns) == label[:columns]).all()
  assert label[0] == 0 and label[15] == 999
  assert np.ptp(np.diff(label[:columns])) <= 1  # they lie evenly
  label, columns = lay_out(1001, 1000)
  assert label.tolist() == [*range(1000), 0] and columns == 0
  assert lay_out(5, 0) == (None, 0)
