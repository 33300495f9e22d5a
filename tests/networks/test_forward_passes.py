"""Forward passes of the architectures, written once more from their papers.

In float64 NumPy, of parameters drawn such that no layer is silent: blocks that
start as the identity, biases and scales are seen. Each reference has to use up
all that the network has.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import layers64 as np64
from helpers.layers64 import dense, flat, leaky, relu
from helpers.nets import CLASSES, drawn, quick, shapes_of

from gan_jax import networks

N = 3
LABEL = np.array([4, 1, 4])


def head(take, h, label):
  """psi(h) + <e(y), h>: the class adds nothing else (projection, eq. 3)."""
  logit = dense(h, take('Dense'))[:, 0]
  if label is None:
    return logit
  embedding = take('Dense')
  assert embedding['kernel'].shape == (CLASSES, h.shape[-1])
  assert set(embedding) == {'kernel'}
  return logit + (embedding['kernel'][label] * h).sum(1)


class Take(np64.Layers):
  """Layers in order, and the normalisation if there is one."""

  def norm(self, h, label=None):
    if any(name.startswith('BatchNorm') for name in self.left):
      return np64.batch_norm(h, self('BatchNorm'), label)
    return h


def mlp_g(take, z, label):
  h = z
  for _ in range(2):
    h = np64.silu(dense(h, take('Dense')))
  return np.tanh(dense(h, take('Dense'))).reshape(N, 4, 4, 1)


def mlp_d(take, x, label):
  h = flat(x)
  for _ in range(2):
    h = np64.silu(dense(h, take('Dense')))
  return head(take, h, label)


def goodfellow2014_g(take, z, label):
  h = z
  for _ in range(2):
    h = relu(dense(h, take('Dense')))
  pixels = np64.sigmoid(dense(h, take('Dense')))  # in [0, 1]
  return (2 * pixels - 1).reshape(N, 4, 4, 1)


def goodfellow2014_d(take, x, label):
  h = (flat(x) + 1) / 2
  for _ in range(2):
    h = np64.maxout(dense(h, take('Dense')), 5)
  return head(take, h, label)


def dcgan_g(take, z, label):
  """Sides 4, 8, 16; ReLU, and tanh at the image."""
  h = dense(z, take('Dense')).reshape(N, 4, 4, -1)
  h = relu(take.norm(h, label))
  h = np64.conv_transpose(h, take('ConvTranspose'), 8)
  h = relu(take.norm(h, label))
  return np.tanh(np64.conv_transpose(h, take('ConvTranspose'), 16))


def dcgan_d(take, x, label):
  """No normalisation of the first layer; leaky ReLU of slope 0.2."""
  h = leaky(np64.conv(x, take('Conv'), 2))
  h = leaky(take.norm(np64.conv(h, take('Conv'), 2)))
  return head(take, flat(h), label)


def infogan_g(take, z, label):
  """Sides 4, 8, 16; leaky ReLU, and a sigmoid of pixels in [0, 1]."""
  h = leaky(take.norm(dense(z, take('Dense')), label))
  h = leaky(take.norm(dense(h, take('Dense')), label))
  h = np64.conv_transpose(h.reshape(N, 4, 4, -1), take('ConvTranspose'), 8)
  h = leaky(take.norm(h, label))
  pixels = np64.sigmoid(np64.conv_transpose(h, take('ConvTranspose'), 16))
  return 2 * pixels - 1


def infogan_d(take, x, label):
  h = leaky(np64.conv((x + 1) / 2, take('Conv'), 2))
  h = leaky(take.norm(np64.conv(h, take('Conv'), 2)))
  h = leaky(take.norm(dense(flat(h), take('Dense'))))
  return head(take, h, label)


def sndcgan_g(take, z, label):
  """Sides 3, 5, 9, 18; the first layer is normalised place by place."""
  h = relu(take.norm(dense(z, take('Dense')), label)).reshape(N, 3, 3, -1)
  for side in (5, 9, 18):
    h = np64.conv_transpose(h, take('ConvTranspose'), side)
    h = relu(take.norm(h, label))
  return np.tanh(np64.conv(h, take('Conv')))


def sndcgan_d(take, x, label):
  h = x
  for stride in (1, 2, 1, 2, 1, 2, 1):
    h = leaky(np64.conv(h, take('Conv'), stride), 0.1)
  return head(take, flat(h), label)


def resnet_g(take, z, label):
  """Table 4: dense to 4x4, three blocks that double, norm, ReLU, 3x3, tanh."""
  h = dense(z, take('Dense')).reshape(N, 4, 4, -1)
  for _ in range(3):
    r = relu(take.norm(h, label))
    r = np64.conv(np64.nearest(r), take('UpConv'))
    r = relu(take.norm(r, label))
    r = np64.conv(r, take('Conv'))
    h = r + np64.conv(np64.nearest(h), take('Conv'))
  return np.tanh(np64.conv(relu(take.norm(h)), take('Conv')))


def resnet_d(take, x, label):
  """Table 4: two blocks that halve, two that do not, ReLU, sum, dense."""
  r = relu(np64.conv(x, take('Conv')))
  r = np64.mean2(np64.conv(r, take('ConvPool')))
  h = r + np64.conv(np64.mean2(x), take('Conv'))
  r = relu(np64.conv(relu(h), take('Conv')))
  r = np64.mean2(np64.conv(r, take('ConvPool')))
  h = r + np64.mean2(np64.conv(h, take('Conv')))
  for _ in range(2):
    r = relu(np64.conv(relu(h), take('Conv')))
    h = h + np64.conv(r, take('Conv'))
  return head(take, relu(h).sum((1, 2)), label)


def r3gan_block(take, h):
  """1x1, biased leaky ReLU, grouped 3x3 likewise, 1x1, added."""
  r = leaky(np64.conv(h, take('Conv')) + take('_Bias')['bias'])
  r = np64.conv(r, take('GroupedConv'), groups=h.shape[-1] // 8)
  r = leaky(r + take('_Bias')['bias'])
  return h + np64.conv(r, take('Conv'))


def r3gan_g(take, z, label):
  if label is not None:
    z = np.concatenate([z, take('Dense')['kernel'][label]], axis=1)
  h = take.leaf('basis') * dense(z, take('Dense'))[:, None, None]
  h = r3gan_block(take, r3gan_block(take, h))
  h = r3gan_block(take, r3gan_block(take, np64.upsampled(h)))
  return np64.conv(h, take('Conv'))


def r3gan_d(take, x, label):
  h = np64.conv(x, take('Conv'))
  h = r3gan_block(take, r3gan_block(take, h))
  h = r3gan_block(take, r3gan_block(take, np64.downsampled(h)))
  h = dense((h * take.leaf('basis')).sum((1, 2)), take('Dense'))
  if label is None:
    return h[:, 0]
  return (h * take('Dense')['kernel'][label]).sum(1)


# name: its pair of references and the shape of a sample
NETWORKS = {
  'mlp': (mlp_g, mlp_d, (4, 4, 1)),
  'goodfellow2014': (goodfellow2014_g, goodfellow2014_d, (4, 4, 1)),
  'dcgan': (dcgan_g, dcgan_d, (16, 16, 3)),
  'infogan': (infogan_g, infogan_d, (16, 16, 3)),
  'sndcgan': (sndcgan_g, sndcgan_d, (18, 18, 3)),
  'resnet': (resnet_g, resnet_d, (32, 32, 3)),
  'r3gan': (r3gan_g, r3gan_d, (8, 8, 3)),
}
WIDTHS = {'goodfellow2014': 0, 'r3gan': 16}
CLASSED = {'conditioning': 'projection', 'classes': CLASSES}


def near(net, reference, x, label, train):
  params, stats = drawn(net)
  take = Take(params, stats.get('batch_stats'))
  expected = reference(take, np.float64(x), label)
  assert not take.left, 'parameters that the paper does not have'

  @quick
  def found(params, stats, x):
    kind = {'label': None if label is None else jnp.asarray(label)}
    return net.apply(params, stats, x, train=train, **kind)[0]

  assert expected.std() > 0.05 * np.abs(expected).max(), 'nothing is seen'
  np.testing.assert_allclose(
    found(params, stats, jnp.float32(x)),
    expected,
    rtol=1e-4,
    atol=1e-4 * np.abs(expected).max(),
  )


def built(name, **kwargs):
  shape = NETWORKS[name][2]
  width = WIDTHS.get(name, 4)
  return networks.build(name, shape, bounded=True, width=width, **kwargs)


@pytest.mark.parametrize(
  ('name', 'kwargs'),
  [
    *((name, {}) for name in NETWORKS),
    ('infogan', CLASSED),
    ('resnet', CLASSED),
    ('r3gan', CLASSED),
    ('dcgan', {'norm_g': 'spectral'}),
    ('resnet', {'norm_g': 'spectral'}),
  ],
)
def test_generators_against_numpy(name, kwargs):
  nets = built(name, **kwargs)
  z = np.random.default_rng(1).normal(size=(N, nets.latent_dim))
  label = LABEL if nets.classes else None
  train = kwargs.get('norm_g') != 'spectral'
  near(nets.generator, NETWORKS[name][0], z, label, train)


@pytest.mark.parametrize(
  ('name', 'kwargs'),
  [
    *((name, {}) for name in NETWORKS if name != 'goodfellow2014'),
    *((name, CLASSED) for name in NETWORKS),
    ('mlp', {'packing': 2}),
    ('resnet', {'packing': 2, 'norm_d': 'none'}),
  ],
)
def test_discriminators_against_numpy(name, kwargs):
  """With and without classes, in packs and alone; spectral where it is so."""
  nets = built(name, **kwargs)
  *places, channels = NETWORKS[name][2]
  shape = (N, *places, channels * kwargs.get('packing', 1))
  x = np.random.default_rng(1).uniform(-1, 1, shape)
  label = LABEL if nets.classes else None
  train = name in ('dcgan', 'infogan')  # by the statistics of the batch
  near(nets.discriminator, NETWORKS[name][1], x, label, train)


@pytest.mark.parametrize(
  ('first', 'kept'), [(0, (0.8, 0.5, 0.5)), (1, (0.5, 0.5)), (2, (0.5,))]
)
def test_dropout_drops_what_the_2014_code_drops(first, kept):
  """A fifth of the pixels, a half of each layer's units: by one path of ones.

  From the layer `first` on, one number reaches the logit through a weight of 1
  in each layer: it is all kept, and then divided by the chance of it, or 0.
  """
  n, shape = 1000, (2, 2, 1)
  nets = networks.build('goodfellow2014', shape, bounded=True)
  params, stats = jax.tree.map(
    lambda leaf: np.zeros(leaf.shape, np.float32),
    shapes_of(nets.discriminator),
  )
  for i in range(first, 3):
    params[f'Dense_{i}']['kernel'][0, 0] = 1
  if first:
    params[f'Dense_{first - 1}']['bias'][0] = 1

  @quick
  def logits_of(params, key):
    x = jnp.ones((n, *shape))  # white: pixels of 1
    return nets.discriminator.apply(params, stats, x, train=True, key=key)[0]

  logits = np.asarray(logits_of(params, jax.random.key(1)))
  share, through = np.prod(kept), logits > 0
  np.testing.assert_allclose(logits[through], 1 / share, rtol=1e-5)
  assert not logits[~through].any()
  assert abs(through.mean() - share) < 4 * np.sqrt(share * (1 - share) / n)
