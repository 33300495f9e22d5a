"""Straight-line Threefry: the bits of the paper, and no loop."""

import jax
import jax.numpy as jnp

from gan_jax.game import streams
from gan_jax.runtime import threefry

_MASK = 0xFFFFFFFF


def hash_of(key, counter):
  """Both halves of Threefry-2x32, in Python's whole numbers."""
  (k1, k2), (c1, c2) = key, counter
  ks, turns = [k1, k2, k1 ^ k2 ^ 0x1BD11BDA], [13, 15, 26, 6, 17, 29, 16, 24]
  c1, c2 = (c1 + k1) & _MASK, (c2 + k2) & _MASK
  for i in range(20):
    c1, t = (c1 + c2) & _MASK, turns[i % 8]
    c2 = ((c2 << t | c2 >> (32 - t)) & _MASK) ^ c1
    if i % 4 == 3:
      n = i // 4 + 1
      c1 = (c1 + ks[n % 3]) & _MASK
      c2 = (c2 + ks[(n + 1) % 3] + n) & _MASK
  return c1, c2


def test_draws_and_folds_are_those_of_the_paper():
  root = jax.random.key(3)
  key = streams.stream(root, 'latent')
  halves = tuple(map(int, jax.random.key_data(key)))
  root_halves = tuple(map(int, jax.random.key_data(root)))
  assert halves == hash_of(root_halves, (0, streams._number('latent')))
  drawn = jax.random.bits(key, (5,)).tolist()
  assert drawn == [
    a ^ b for a, b in (hash_of(halves, (0, i)) for i in range(5))
  ]


def test_what_a_run_draws_compiles_to_no_loop():
  def draw(key):
    folded = streams.stream(key, 'a', 7)
    keys = jax.random.split(jax.random.clone(folded), 3)
    return keys, jax.random.normal(folded, (129,))

  assert 'while' not in jax.jit(draw).lower(jax.random.key(0)).as_text()


def test_halves_broadcast_as_those_of_the_primitive_do():
  one = threefry.hash_2x32(*map(jnp.uint32, (1, 2, 3, 4)))
  many = threefry.hash_2x32(
    jnp.uint32(1), jnp.uint32(2), jnp.full(4, 3, 'uint32'), jnp.uint32(4)
  )
  for a, b in zip(one, many, strict=True):
    assert (b == a).all()
