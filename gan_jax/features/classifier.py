"""A small classifier that trains itself, for sets that Inception never saw.

Digits and clothes are far from photographs. A network that has learnt to tell
their classes gives features that mean something there, and the class
probabilities that mode counts need. It is trained in minutes on the images as
the run sees them, from a fixed seed, and cached beside the data with its hash
and its accuracy on images that it has not seen.
"""

import functools
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key, UInt8
from numpy.typing import NDArray

from gan_jax import data
from gan_jax.features.base import (
  Apply,
  Features,
  Spec,
  Weights,
  make_features,
)
from gan_jax.networks.layers import Dense
from gan_jax.runtime.array_cache import Arrays, cached_arrays
from gan_jax.runtime.errors import ArgumentError
from gan_jax.runtime.progress import progress_bar

DIM = 128
# All that the weights are a function of besides the images. Change `version`
# with the code below: a cached classifier is then trained anew.
RECIPE: dict[str, Any] = {
  'version': 1,
  'seed': 0,
  'batch': 128,
  'epochs': 6,
  'least_steps': 600,
  'lr': 2e-3,
}
_HELD_OUT = 10  # one in so many, where a set has no test split
_SPLITS = ('test', 'validation')


class Network(nn.Module):
  """Two 4x4 convolutions of stride 2 and a hidden layer of 128 features.

  The convolutions are products of patches: XLA's gradients of strided ones
  are many times slower on images of 8x8.
  """

  classes: int

  @nn.compact
  def __call__(
    self, images: UInt8[Array, 'n h w c']
  ) -> tuple[Float[Array, 'n classes'], Float[Array, 'n 128']]:
    """Logits of the classes, and the features that they are made of."""
    init = nn.initializers.he_normal()
    x = images.astype(jnp.float32) / 127.5 - 1
    x = nn.relu(Dense(32, kernel_init=init)(_patches(x)))
    x = nn.relu(Dense(64, kernel_init=init)(_patches(x)))
    x = x.reshape(x.shape[0], -1)
    features = nn.relu(Dense(DIM, kernel_init=init)(x))
    return Dense(self.classes)(features), features


def _outputs(
  network: Network, params: Weights, images: UInt8[Array, 'n h w c']
) -> tuple[Float[Array, 'n classes'], Float[Array, 'n 128']]:
  outputs: Any = network.apply(params, images)
  return outputs


def _patches(x: Float[Array, 'n h w c']) -> Float[Array, 'n _ _ _']:
  """Every other 4x4 patch, as channels: (n, h, w, c) -> (n, h/2, w/2, 16 c)."""
  n, h, w, c = x.shape
  h, w = -(-h // 2), -(-w // 2)
  rows, columns = (0, 2 * h - x.shape[1]), (0, 2 * w - x.shape[2])
  x = jnp.pad(x, ((0, 0), rows, columns, (0, 0)))
  x = x.reshape(n, h, 2, w, 2, c).transpose(0, 1, 3, 2, 4, 5)
  x = x.reshape(n, h, w, 4 * c)
  x = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
  shifted = [x[:, i : i + h, j : j + w] for i in (0, 1) for j in (0, 1)]
  return jnp.concatenate(shifted, axis=-1)


class Trained(NamedTuple):
  """A classifier, and how well it does on images that it has not seen."""

  params: Weights
  accuracy: float


def train(
  images: UInt8[np.ndarray, 'n h w c'],
  labels: NDArray[np.int32],
  classes: int,
  held_out: tuple[NDArray[np.uint8], NDArray[np.int32]],
) -> Trained:
  """Trains a classifier; the same images give the same bits on a machine.

  Args:
    images: all of them, which stay on the device.
    labels: of each, from 0.
    classes: how many there are.
    held_out: images and labels that the accuracy is taken on.
  """
  count = len(images)
  batch = min(RECIPE['batch'], count)
  steps = count // batch  # of an epoch
  epochs = max(RECIPE['epochs'], -(-RECIPE['least_steps'] // steps))
  reach = images.shape[1] // 14  # pixels that images are shifted by
  init, epoch = _programs(classes, epochs * steps, RECIPE['lr'], reach)
  samples = jnp.asarray(images), jnp.asarray(labels)
  state = init(jax.random.key(RECIPE['seed']), samples[0][:1])
  rng = np.random.Generator(np.random.Philox(RECIPE['seed']))
  for _ in progress_bar(range(epochs), epochs, 'training the classifier'):
    order = rng.permutation(count)[: steps * batch].reshape(steps, batch)
    shifts = rng.integers(0, 2 * reach + 1, (steps, 2))
    state = jax.block_until_ready(
      epoch(state, samples, jnp.asarray(order), jnp.asarray(shifts))
    )
  params = jax.device_get(state[0])
  return Trained(params, _accuracy(Network(classes), params, *held_out))


@functools.cache
def _programs(classes: int, updates: int, lr: float, reach: int) -> Any:
  """`(key, image) -> state` and one pass over shifted images, compiled."""
  network = Network(classes)
  optimizer = optax.adam(optax.cosine_onecycle_schedule(updates, lr))

  def init(key: Key[Array, ''], image: Array) -> Any:
    params = network.init(key, image)
    return params, optimizer.init(params)

  def loss(params: Weights, x: Array, labels: Array) -> Array:
    logits, _ = _outputs(network, params, x)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses.mean()

  def epoch(state: Any, samples: Any, order: Array, shifts: Array) -> Any:
    images, labels = samples

    def step(state: Any, item: tuple[Array, Array]) -> Any:
      (params, opt_state), (index, shift) = state, item
      x = images[index]
      room = ((0, 0), (reach, reach), (reach, reach), (0, 0))
      start = (0, shift[0], shift[1], 0)
      x = jax.lax.dynamic_slice(jnp.pad(x, room), start, x.shape)
      gradient = jax.grad(loss)(params, x, labels[index])
      updates, opt_state = optimizer.update(gradient, opt_state, params)
      return (optax.apply_updates(params, updates), opt_state), None

    return jax.lax.scan(step, state, (order, shifts))[0]

  return jax.jit(init), jax.jit(epoch, donate_argnums=0)


def _accuracy(
  network: Network,
  params: Weights,
  images: NDArray[np.uint8],
  labels: NDArray[np.int32],
) -> float:
  guess = jax.jit(lambda p, x: _outputs(network, p, x)[0].argmax(axis=-1))
  size = min(500, len(images))
  starts = range(0, len(images) - size + 1, size)
  correct = [
    np.asarray(guess(params, images[s : s + size])) == labels[s : s + size]
    for s in starts
  ]
  return float(np.concatenate(correct).mean())


def trained_on(
  name: str, shape: tuple[int, ...], data_dir: str, cache: pathlib.Path
) -> tuple[Trained, dict[str, Any]]:
  """The classifier of a dataset: from the cache, or trained now.

  Returns:
    It, and the facts that it depends on.

  Raises:
    ArgumentError: if the set has no classes.
    DataError: if the set cannot be had.
  """
  images = data.load(
    name, data_dir=data_dir, image_size=shape[0], channels=shape[2]
  )
  if not isinstance(images, data.SampleSet) or len(images.classes) < 2:
    remedy = 'has no classes to learn; write classifier-DATASET with one that'
    raise ArgumentError(
      'features', f'classifier-{name}', f'{remedy} has, as classifier-mnist'
    )
  facts = {
    'dataset': name,
    'shape': list(shape),
    'classes': len(images.classes),
    'fingerprint': images.fingerprint,
    'recipe': RECIPE,
    'jax': jax.__version__,
    'device': jax.devices()[0].device_kind,
  }

  def make() -> Arrays:
    trained = train(*_halves(name, images, shape, data_dir))
    return _leaves(trained.params) | {'accuracy': np.array(trained.accuracy)}

  arrays = cached_arrays(cache, facts, make, name=name)
  like = jax.eval_shape(
    Network(len(images.classes)).init,
    jax.random.key(0),
    jax.ShapeDtypeStruct((1, *shape), jnp.uint8),
  )
  params = jax.tree.unflatten(
    jax.tree.structure(like), [arrays[leaf] for leaf in _names(like)]
  )
  return Trained(params, float(arrays['accuracy'])), facts


def _halves(
  name: str, images: data.SampleSet, shape: tuple[int, ...], data_dir: str
) -> tuple[Any, Any, int, Any]:
  """Arguments of `train`: images, labels, classes, and what is held out."""
  x, labels, classes = images.array(), images.labels(), len(images.classes)
  for split in _SPLITS:
    try:
      held_out: Any = data.load(
        name,
        data_dir=data_dir,
        image_size=shape[0],
        channels=shape[2],
        split=split,
      )
    except ArgumentError:
      continue
    if held_out.fingerprint != images.fingerprint:  # a folder has no splits
      return x, labels, classes, (held_out.array(), held_out.labels())
  order = np.random.Generator(np.random.Philox(1)).permutation(len(x))
  out, rest = order[: len(x) // _HELD_OUT], order[len(x) // _HELD_OUT :]
  return x[rest], labels[rest], classes, (x[out], labels[out])


def _names(params: Weights) -> list[str]:
  leaves = jax.tree_util.tree_leaves_with_path(params)
  return [
    jax.tree_util.keystr(path, simple=True, separator='.') for path, _ in leaves
  ]


def _leaves(params: Weights) -> Arrays:
  leaves = map(np.asarray, jax.tree.leaves(params))
  return dict(zip(_names(params), leaves, strict=True))


@functools.cache
def _apply(classes: int, stacked: bool) -> Apply:
  """The function of a classifier: one, to be compiled once."""
  network = Network(classes)

  def apply(
    weights: Weights, images: UInt8[Array, 'n h w c'], outputs: Sequence[str]
  ) -> dict[str, Array]:
    n, h, w, c = images.shape
    if stacked:
      images = jnp.moveaxis(images, 3, 1).reshape(c * n, h, w, 1)
    logits, features = _outputs(network, weights, images)
    chances = jax.nn.softmax(logits)
    if stacked:
      features = features.reshape(n, c * DIM)
      chances = _product(chances.reshape(n, c, classes))
    both = {'features': features, 'probabilities': chances}
    return {name: both[name] for name in outputs}

  return apply


def make(spec: Spec) -> Features:
  """Features of a classifier: `classifier`, or `classifier-DATASET`.

  A classifier of grey images takes colour ones channel by channel, as the
  stacked digits are: the features of the three in a row, and the product of
  their probabilities, class `(c0 classes + c1) classes + c2`.

  Raises:
    ArgumentError: if no dataset is named or it has no classes.
  """
  if spec.weights:
    remedy = 'a classifier trains itself; leave it out'
    raise ArgumentError('weights', spec.weights, remedy)
  name = '-'.join(spec.options) or spec.dataset
  if not name:
    remedy = 'learns from what? Write classifier-DATASET, as classifier-mnist'
    raise ArgumentError('features', spec.text, remedy)
  name, stacked = _training_set(name)
  shape = spec.sample_shape
  single = (*shape[:2], 1) if stacked else shape
  cache = spec.cache / 'gan_jax_classifiers'
  trained, facts = trained_on(name, single, spec.data_dir, cache)
  return make_features(
    f'classifier-{name}',
    DIM * (3 if stacked else 1),
    _apply(facts['classes'], stacked),
    trained.params,
    {**facts, 'stacked': stacked, 'accuracy': trained.accuracy},
    shape,
    classes=facts['classes'] ** (3 if stacked else 1),
  )


def _training_set(name: str) -> tuple[str, bool]:
  """The set that a dataset's images are of, and whether it stacks them."""
  if name.startswith(data.PATHS):
    return name, False
  name = name.partition('[')[0]  # of a part of a set, the whole
  base = name.removeprefix('stacked_')
  stacked = base != name
  return ('fashion_mnist' if stacked and base == 'fashion' else base), stacked


def _product(
  chances: Float[Array, 'n 3 classes'],
) -> Float[Array, 'n classes**3']:
  """Probabilities of triples of independent draws."""
  a, b, c = (chances[:, i] for i in range(3))
  joint = a[:, :, None, None] * b[:, None, :, None] * c[:, None, None, :]
  return joint.reshape(chances.shape[0], -1)
