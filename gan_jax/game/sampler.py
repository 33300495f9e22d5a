"""The one jitted sampler of G.

Sample number i of a seed comes from the noise of `fold_in(key, i)` and, where
the networks know classes, from a class that is a function of i
(`classes.numbered_classes`): neither the batch nor the number of devices has a
say in what is drawn. Its products are those of float32 on every device,
whatever training used.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key
from numpy.typing import NDArray

from gan_jax.game.classes import numbered_classes
from gan_jax.networks.base import Networks, Params, Stats
from gan_jax.runtime import numerics, sharding

BATCH = 256  # samples that go through G at a time, at the most


class Sampler:
  """Draws from any parameters of one pair of networks; compiled once a size.

  Attributes:
    networks: whose G it is.
    batch: samples that go through G at a time.
  """

  def __init__(
    self, networks: Networks, mesh: Mesh | None = None, batch: int = BATCH
  ) -> None:
    """Compiles nothing yet.

    Args:
      networks: G and the distribution of its noise.
      mesh: devices that batches are split over; None: the default device.
      batch: samples at a time.
    """
    self.networks, self.batch, self._mesh = networks, batch, mesh
    how: Any = {}
    if mesh is not None:
      how = dict(out_shardings=sharding.replicated(mesh))
    self._generate = jax.jit(self._of_noise, **how)
    self._numbered = jax.jit(self._of_numbers, static_argnums=4, **how)

  def _split(self, x: Any) -> Any:
    if self._mesh is None or self._mesh.size == 1:
      return x
    return sharding.batch_sharder(self._mesh)(x)

  def _of_noise(self, params: Params, stats: Stats, z: Any, label: Any) -> Any:
    with numerics.multiplying('highest'):
      x, _ = self.networks.generator.apply(
        params, stats, self._split(z), train=False, key=None, label=label
      )
    return x.astype(jnp.float32)

  def _of_numbers(
    self,
    params: Params,
    stats: Stats,
    key: Any,
    start: Any,
    count: int,
    label: Any,
  ) -> Any:
    if not jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key):
      key = jax.random.wrap_key_data(key)
    number = start + jnp.arange(count)
    z = self.latent(key, number)
    if label is None and self.networks.classes:
      networks = self.networks
      label = numbered_classes(networks.classes, networks.class_counts, number)
    return self._of_noise(params, stats, z, label)

  def latent(
    self, key: Key[Array, ''], number: Int[Array, ' n']
  ) -> Float[Array, 'n latent_dim']:
    """Noise of samples by their numbers."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, number)
    shape = (self.networks.latent_dim,)
    return jax.vmap(lambda k: self.networks.latent(k, shape))(keys)

  def generate(
    self, params: Params, stats: Stats, z: Any, label: Any = None
  ) -> Float[Array, 'n *shape']:
    """Samples from noise (n, latent_dim) and classes (n,) or None."""
    return self._generate(params, stats, z, label)

  def numbered(
    self,
    params: Params,
    stats: Stats,
    key: Key[Array, ''],
    start: Any,
    count: int,
    label: Any = None,
  ) -> Float[Array, 'n *shape']:
    """Samples number `start` to `start + count` of a key, on the devices.

    Args:
      params: of G, live or averaged.
      stats: its running statistics.
      key: the seed's.
      start: number of the first one.
      count: how many; each count is a compiled program of its own.
      label: classes (count,); None: as often as the networks say, where there
        are any.
    """
    return self._numbered(params, stats, key, start, count, label)

  def batches(
    self,
    params: Params,
    stats: Stats,
    seed: int,
    count: int,
    label: NDArray[np.int32] | None = None,
  ) -> Iterator[NDArray[np.float32]]:
    """The first `count` samples of a seed, on the host, batch after batch."""
    # Its data: to clone a key for each batch costs more than a small G.
    key = jax.random.key_data(jax.random.key(seed))
    for start in range(0, count, self.batch):
      rows = min(self.batch, count - start)
      own = None
      if label is not None:
        own = np.zeros(self.batch, np.int32)
        own[:rows] = label[start : start + rows]
      x = self._numbered(params, stats, key, np.int32(start), self.batch, own)
      yield np.asarray(x)[:rows]

  def first(
    self,
    params: Params,
    stats: Stats,
    seed: Any,
    count: int,
    label: NDArray[np.int32] | None = None,
  ) -> Float[Array, 'n *shape']:
    """The same samples in one piece, for a program that is being traced.

    Args:
      params: of G, live or averaged.
      stats: its running statistics.
      seed: a whole number, which may be traced.
      count: how many.
      label: classes (count,); None: as often as the networks say.
    """
    key, batch = jax.random.key(seed), self.batch
    starts = np.arange(0, count, batch, dtype=np.int32)
    labels: Any = None
    if label is not None:
      room = np.zeros(len(starts) * batch, np.int32)
      room[:count] = label
      labels = jnp.asarray(room.reshape(-1, batch))

    def draw(of: tuple[Any, Any]) -> Any:
      start, own = of
      return self._of_numbers(params, stats, key, start, batch, own)

    if len(starts) == 1:
      own = None if labels is None else labels[0]
      return draw((starts[0], own))[:count]
    x = jax.lax.map(draw, (starts, labels))
    return x.reshape(-1, *x.shape[2:])[:count]
