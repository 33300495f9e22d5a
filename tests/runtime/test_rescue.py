"""States that one process saves alone: whole, newer, and of this run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.runtime import rescue


def a_state(scale=1.0):
  return {
    'key': jax.random.key(7),
    'params': {
      'w': scale * jnp.arange(6.0).reshape(2, 3),
      'b': jnp.array([1.5, -2.0], jnp.bfloat16),
      'none': jnp.zeros((0, 2)),
    },
    'step': jnp.int32(3),
  }


def template():
  return jax.eval_shape(a_state)


def write(folder, step, state=None, **meta):
  state = a_state() if state is None else state
  return rescue.write(folder, rescue.hold(step, state, {'note': 1, **meta}))


def read(folder, above=-1):
  said = []
  return rescue.read_newest(folder, template(), above, said.append), said


def test_it_comes_back_to_the_bit(tmp_path):
  assert write(tmp_path, 20, note=5) and not write(tmp_path, 20)
  (state, meta), said = read(tmp_path)
  assert not said and (meta['step'], meta['note']) == (20, 5)
  assert state['key'].dtype == jax.random.key(0).dtype
  assert jax.tree.structure(state) == jax.tree.structure(a_state())
  one, other = (rescue.hold(0, s, {}).arrays for s in (state, a_state()))
  for name, x in one.items():
    assert x.dtype == other[name].dtype and x.shape == other[name].shape
    assert np.asarray(x).tobytes() == np.asarray(other[name]).tobytes()


def test_only_what_is_newer_than_the_checkpoints_is_taken(tmp_path):
  write(tmp_path, 20)
  write(tmp_path, 30, a_state(2.0))
  (state, meta), _ = read(tmp_path)
  assert meta['step'] == 30 and state['params']['w'][0, 1] == 2
  assert read(tmp_path, above=30) == (None, [])
  rescue.discard(tmp_path, 20)
  assert rescue.find_steps(tmp_path) == [30]
  rescue.discard(tmp_path, 30)
  assert not (tmp_path / 'rescue').exists()
  rescue.discard(tmp_path, 30)


@pytest.mark.parametrize(
  'how', ['cut', 'flipped', 'written anew', 'of other networks']
)
def test_what_is_not_whole_is_named_and_passed_over(tmp_path, how):
  write(tmp_path, 20)
  path = rescue.path_of(tmp_path, 30)
  if how == 'of other networks':
    write(tmp_path, 30, {'w': jnp.ones(3)})
  elif how == 'written anew':  # a whole archive, of another array
    write(tmp_path, 30)
    with np.load(path) as file:
      arrays = dict(file)
    arrays['params/w'][0] ^= 1
    np.savez(path, **arrays)
  else:
    write(tmp_path, 30)
    content = bytearray(path.read_bytes())
    place = content.index(np.float32(4.0).tobytes())
    content[place + 2] ^= 1
    path.write_bytes(content[:400] if how == 'cut' else content)
  (_, meta), said = read(tmp_path)
  assert meta['step'] == 20
  assert len(said) == 1 and str(path) in said[0]
