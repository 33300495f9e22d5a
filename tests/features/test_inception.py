"""The FID Inception: its resizers and its wiring, without torch."""

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from helpers import inception_numpy

from gan_jax import features
from gan_jax.features import inception, resize
from gan_jax.features.inception_weights import LAYERS
from gan_jax.runtime.errors import ArgumentError


def images(*shape, seed=0):
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


# Resizing.


@pytest.mark.parametrize('size, out', [(5, 13), (13, 5), (7, 7), (32, 299)])
def test_bilinear_reads_each_pixel_where_its_rule_says(size, out):
  x = np.random.default_rng(0).normal(size=size)
  for rule, shift in ((resize.tensorflow, 0), (resize.pytorch, 0.5)):
    y = rule(size, out) @ x
    for i in range(out):
      at = min(max((i + shift) * size / out - shift, 0), size - 1)
      low = int(at)
      high, part = min(low + 1, size - 1), at - low
      wanted = (1 - part) * x[low] + part * x[high]
      assert y[i] == pytest.approx(wanted, abs=1e-12), (rule, i)


@pytest.mark.parametrize('h, w', [(20, 33), (299, 31), (400, 350)])
def test_clean_is_the_resize_of_pillow(h, w):
  x = images(2, h, w, 3)
  found = np.asarray(
    jax.jit(resize.resize, static_argnums=(1, 2))(x, 299, 'clean')
  )
  for i, c in ((0, 0), (1, 2)):
    plane = PIL.Image.fromarray(x[i, :, :, c].astype(np.float32))
    wanted = plane.resize((299, 299), PIL.Image.Resampling.BICUBIC)
    np.testing.assert_allclose(found[i, :, :, c], np.asarray(wanted), atol=2e-3)


@pytest.mark.parametrize('rule', resize.RESIZERS)
def test_a_resizer_leaves_what_fits_and_keeps_constants(rule):
  np.testing.assert_allclose(resize.RESIZERS[rule](9, 9), np.eye(9), atol=1e-12)
  for size in (3, 40):
    np.testing.assert_allclose(resize.RESIZERS[rule](size, 17).sum(1), 1)


def test_resizers_differ_and_rows_are_not_columns():
  x = images(1, 6, 10, 1)
  found = {
    rule: np.asarray(resize.resize(jnp.asarray(x), 25, rule))
    for rule in resize.RESIZERS
  }
  assert np.abs(found['tensorflow'] - found['pytorch']).max() > 10
  assert np.abs(found['clean'] - found['pytorch']).max() > 10
  turned = resize.resize(jnp.asarray(x.swapaxes(1, 2)), 25, 'clean')
  np.testing.assert_allclose(
    np.asarray(turned).swapaxes(1, 2), found['clean'], rtol=1e-5, atol=1e-3
  )


def test_four_channels_are_refused_with_what_to_do():
  with pytest.raises(
    ArgumentError, match='these have 4 channels; use .*pixels'
  ):
    features.load('inception-2048', sample_shape=(8, 8, 4))


def test_scaling_is_that_of_the_graph_and_grey_becomes_colour():
  x = jnp.array([0, 128, 255], jnp.uint8).reshape(1, 1, 3, 1).repeat(3, 1)
  graph = np.asarray(inception.scale(x, 'tensorflow', 3))
  assert graph.shape == (1, 3, 3, 3)
  np.testing.assert_allclose(graph[0, 0, :, 1], [-1, 0, 127 / 128])
  port = np.asarray(inception.scale(x, 'pytorch', 3))
  np.testing.assert_allclose(port[0, 0, :, 2], [-1, 1 / 255, 1], atol=1e-6)


# Wiring.


def narrow(divisor=16, seed=0):
  """Random weights of a network with fewer channels."""
  rng = np.random.default_rng(seed)

  def fewer(n):
    return n if n in (3, 1008) else n // divisor

  found = {}
  for name, layer in LAYERS.items():
    *kernel, ins, outs = layer.shape
    shape = (*kernel, fewer(ins), fewer(outs))
    std = np.sqrt(2 / np.prod(shape[:-1]))
    found[name] = {
      'w': rng.normal(0, std, shape).astype(np.float32),
      'b': rng.normal(0.1, 0.2, shape[-1]).astype(np.float32),
    }
  return found


@pytest.fixture(scope='module')
def evaluated():
  """Both evaluations of a narrow network, whose last places are 3x3."""
  x = np.random.default_rng(1).normal(size=(2, 139, 139, 3))
  x = x.astype(np.float32)
  small = narrow()
  run = jax.jit(lambda w, x: inception.forward(w, x, list(inception.TAPS)))
  return run(small, x), inception_numpy.taps(small, x.astype(np.float64))


@pytest.mark.parametrize('tap', inception.TAPS)
def test_every_tap_is_that_of_the_graph_in_float64(evaluated, tap):
  found, wanted = (np.asarray(side[tap], np.float64) for side in evaluated)
  assert found.shape == wanted.shape
  assert wanted.std() > 1e-2  # random weights have not died out on the way
  error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
  assert error < 1e-5


def test_the_taps_have_their_dimensions_and_need_no_more_than_their_layers():
  names = list(LAYERS)
  shapes = {
    name: {
      'w': jax.ShapeDtypeStruct(layer.shape, np.float32),
      'b': jax.ShapeDtypeStruct(layer.shape[-1:], np.float32),
    }
    for name, layer in LAYERS.items()
  }
  x = jax.ShapeDtypeStruct((2, 299, 299, 3), np.float32)

  def run(layers, *taps):
    some = {name: shapes[name] for name in layers}
    forward = lambda w, x: inception.forward(w, x, taps)
    return {t: v.shape for t, v in jax.eval_shape(forward, some, x).items()}

  expected = {tap: (2, dim) for tap, dim in inception.TAPS.items()}
  assert run(names, *expected) == expected
  for tap in ('64', '192', 'sfid', '768', '2048'):
    last = names.index(inception.LAST[tap])
    assert run(names[: last + 1], tap) == {tap: expected[tap]}
    if tap != '2048':
      with pytest.raises(KeyError):
        run(names[:last], tap)


def test_probabilities_are_of_the_logits_without_their_bias(monkeypatch):
  taps = {
    '2048': [[7.0]],
    'logits': [[0.0, 5.0]],
    'logits_unbiased': [[1.0, 0]],
  }
  monkeypatch.setattr(
    inception,
    'forward',
    lambda weights, x, names: {name: jnp.array(taps[name]) for name in names},
  )
  see = inception._apply.__wrapped__('2048', 'tensorflow')
  x = jnp.zeros((1, 4, 4, 3), jnp.uint8)
  found = see({}, x, ('features', 'probabilities'))
  np.testing.assert_array_equal(found['features'], [[7]])
  odds = np.exp(1) / (1 + np.exp(1))
  np.testing.assert_allclose(found['probabilities'], [[odds, 1 - odds]], 1e-6)


def test_the_layers_are_those_of_the_public_network():
  convs = [layer.shape for name, layer in LAYERS.items() if name != 'softmax']
  # Parameters of torchvision's inception_v3, less its auxiliary head; of which
  # scales and shifts of batch norm and 1000 classes.
  whole = 27161264 - 3326696
  ours = sum(np.prod(shape) for shape in convs)
  assert ours + 2 * sum(s[-1] for s in convs) + 2048 * 1000 + 1000 == whole
  assert len(LAYERS) == 95
  assert LAYERS['mixed_5/tower_1/conv_3'].torch == 'Mixed_6c.branch7x7dbl_4'
  assert len({layer.torch for layer in LAYERS.values()}) == 95
