"""Threefry on CPU: the bits of the paper, in programs that stay small."""

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


def lowered(draw):
  return jax.jit(draw).lower(jax.random.key(0)).as_text()


def test_draws_compile_to_no_loop_and_keys_to_one_each():
  assert 'while' not in lowered(lambda key: jax.random.bits(key, (300,)))
  folded = lowered(lambda key: streams.stream(key, 'a', 7))
  assert folded.count('stablehlo.while') >= 1


def test_keys_of_keys_make_a_small_program():
  """XLA repeats straight code in whatever reads it: 1,468 of these here."""

  def drawn(key):
    keys = (streams.stream(key, 'a', i) for i in range(4))
    pairs = (jax.random.split(jax.random.fold_in(k, 1)) for k in keys)
    return [
      jax.random.uniform(a, (4,)) * jax.random.normal(b, (4,)) for a, b in pairs
    ]

  program = jax.jit(drawn).lower(jax.random.key(0)).compile().as_text()
  assert program.count(' xor(') < 300


def test_a_loop_and_straight_code_hash_alike():
  counters = jnp.arange(600, dtype=jnp.uint32).reshape(2, 300)
  straight = threefry.hash_2x32(jnp.uint32(5), jnp.uint32(6), *counters)
  few = threefry._KEYS // 2  # of keys: a loop
  for part in (0, few):
    some = counters[:, part : part + few]
    looped = threefry.hash_2x32(jnp.uint32(5), jnp.uint32(6), *some)
    for a, b in zip(straight, looped, strict=True):
      assert (a[part : part + few] == b).all()


def test_halves_broadcast_as_those_of_the_primitive_do():
  one = threefry.hash_2x32(*map(jnp.uint32, (1, 2, 3, 4)))
  many = threefry.hash_2x32(
    jnp.uint32(1), jnp.uint32(2), jnp.full(4, 3, 'uint32'), jnp.uint32(4)
  )
  for a, b in zip(one, many, strict=True):
    assert (b == a).all()
