"""The FID Inception beside its twin in PyTorch; skipped where torch is not."""

import numpy as np
import pytest

torch = pytest.importorskip('torch')

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from helpers import inception_torch  # noqa: E402

from gan_jax import features  # noqa: E402
from gan_jax.features import inception, inception_weights, torch_file  # noqa: E402
from gan_jax.features.inception_weights import LAYERS  # noqa: E402
from gan_jax.features.resize import resize  # noqa: E402
from gan_jax.runtime import sharding  # noqa: E402

SIDE = 139  # the last blocks see 3x3 places


@pytest.fixture(scope='module')
def twin():
  return inception_torch.randomise(inception_torch.Inception(), 0)


@pytest.fixture(scope='module')
def path(twin, tmp_path_factory):
  found = tmp_path_factory.mktemp('weights') / 'a.pth'
  torch.save(twin.state_dict(), found)
  return found


def images(*shape):
  return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def gap(found, wanted):
  """Relative error, of norms."""
  found, wanted = np.float64(found), np.float64(wanted)
  assert found.shape == wanted.shape
  return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


@pytest.mark.parametrize('old', [False, True])
def test_both_formats_are_read_as_torch_reads_them(old, tmp_path):
  x = torch.arange(24.0).reshape(2, 3, 4)
  content = {
    'whole': x,
    'turned': x.permute(2, 0, 1),
    'part': x[1, 1:, ::2],
    'half': x.half(),
    'double': x.double(),
    'long': torch.tensor(7),
    'empty': torch.zeros(0, 3),
    'parameter': torch.nn.Parameter(x[0]),
  }
  path = tmp_path / 'a.pth'
  torch.save(content, path, _use_new_zipfile_serialization=not old)
  found = torch_file.read(path)
  assert set(found) == set(content)
  for name, wanted in content.items():
    wanted = wanted.detach().numpy()
    np.testing.assert_array_equal(found[name], wanted)
    assert found[name].dtype == wanted.dtype


def test_every_layer_is_found_in_a_state_dict(twin, path):
  found = inception_weights.load(path, list(LAYERS))
  assert len(found) == 95
  modules = {name.rpartition('.')[0] for name in twin.state_dict()}
  named = {layer.torch for layer in LAYERS.values()} - {'fc'}
  assert modules == {f'{m}.{k}' for m in named for k in ('conv', 'bn')} | {'fc'}


def test_the_whole_network_is_its_twin(twin, path):
  """Through the file, folded: every tap to 1e-4."""
  x = np.random.default_rng(1).uniform(-1, 1, (2, SIDE, SIDE, 3))
  x = x.astype(np.float32)
  taps = list(inception.TAPS)
  run = jax.jit(lambda w, x: inception.forward(w, x, taps))
  found = run(inception_weights.load(path, list(LAYERS)), x)
  with torch.inference_mode():
    wanted = twin.network(torch.tensor(x.transpose(0, 3, 1, 2)))
  for tap in taps:
    assert wanted[tap].numpy().std() > 1e-2
    assert gap(found[tap], wanted[tap].numpy()) < 1e-4, tap


@pytest.mark.parametrize('size', [32, 400])
def test_the_pytorch_rule_is_that_of_torch(size):
  x = images(1, size, size + 3, 3)
  found = resize(jnp.asarray(x), 299, 'pytorch')
  wanted = torch.nn.functional.interpolate(
    torch.tensor(x.transpose(0, 3, 1, 2)).float(),
    size=(299, 299),
    mode='bilinear',
    align_corners=False,
  )
  np.testing.assert_allclose(
    found, wanted.numpy().transpose(0, 2, 3, 1), atol=2e-2
  )


@pytest.mark.slow
def test_features_of_bytes_are_those_of_pytorch_fid(twin, path):
  x = images(2, 32, 32, 3)
  ours = features.load(
    'inception-2048-pytorch', weights=str(path), sample_shape=(32, 32, 3)
  )
  assert ours.protocol['network'] == 'unknown'
  found = features.extract_features(
    ours, x, outputs=ours.outputs, batch=2, mesh=sharding.make_mesh(1)
  )
  with torch.inference_mode():
    wanted = twin(torch.tensor(x.transpose(0, 3, 1, 2)).float() / 255)
  chances = wanted['logits_unbiased'].softmax(1).numpy()
  assert gap(found['features'], wanted['2048'].numpy()) < 1e-4
  assert gap(found['probabilities'], chances) < 1e-4


@pytest.mark.data
def test_taps_of_the_public_weights_are_those_of_torch(real_data):
  path = real_data / 'inception' / 'inception_fid_trunk_f32.npz'
  layers = list(LAYERS)
  layers = layers[: layers.index(inception.LAST['768']) + 1]
  trunk = inception_weights.load(path, layers)
  twin = inception_torch.filled(inception_torch.Inception(), trunk)
  x = images(2, 32, 32, 3)
  taps = ['64', '192', 'sfid', '768']
  found = jax.jit(
    lambda w, x: inception.forward(w, inception.scale(x, 'pytorch'), taps)
  )(trunk, x)
  with torch.inference_mode():
    wanted = twin(torch.tensor(x.transpose(0, 3, 1, 2)).float() / 255)
  for tap in taps:
    assert gap(found[tap], wanted[tap].numpy()) < 1e-3, tap
