"""A small classifier that trains itself, for sets that Inception never saw.

Digits and clothes are far from photographs. A network that has learnt to tell
their classes gives features that mean something there, and the class
probabilities that mode counts need. It is trained in minutes on the images as
the run sees them, from a fixed seed, and kept beside the data with its hash
and its accuracy on images that it has not seen.
"""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, UInt8
from numpy.typing import NDArray

from gan_jax.features.base import Features, Request, make_features
from gan_jax.features.errors import FeatureFlagError
from gan_jax.networks.layers import Dense
from gan_jax.runtime.array_cache import Arrays, cached_arrays
from gan_jax.runtime.progress import progress_bar

DIM = 128
# All that the weights are a function of besides the images. Change `version`
# with the code below: a classifier kept from before is then trained anew.
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


def _both(network: Network, params: Any, images: Any) -> tuple[Any, Any]:
  logits, features = network.apply(params, images)
  return logits, features


def _patches(x: Any) -> Any:
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

  params: Any
  accuracy: float


def train(
  images: UInt8[np.ndarray, 'n h w c'],
  labels: NDArray[np.int32],
  classes: int,
  held: tuple[NDArray[np.uint8], NDArray[np.int32]],
) -> Trained:
  """Trains a classifier; the same images give the same bits on a machine.

  Args:
    images: all of them, which stay on the device.
    labels: of each, from 0.
    classes: how many there are.
    held: images and labels that the accuracy is taken on.
  """
  network, count = Network(classes), len(images)
  batch = min(RECIPE['batch'], count)
  each = count // batch
  epochs = max(RECIPE['epochs'], -(-RECIPE['least_steps'] // each))
  optimizer = optax.adam(
    optax.cosine_onecycle_schedule(epochs * each, RECIPE['lr'])
  )
  key = jax.random.key(RECIPE['seed'])
  params = jax.jit(network.init)(key, jnp.asarray(images[:1]))
  state = params, jax.jit(optimizer.init)(params)
  epoch = _epoch(network, optimizer, max(images.shape[1] // 14, 0))
  data = jnp.asarray(images), jnp.asarray(labels)
  rng = np.random.Generator(np.random.Philox(RECIPE['seed']))
  for _ in progress_bar(range(epochs), epochs, 'training the classifier'):
    order = rng.permutation(count)[: each * batch].reshape(each, batch)
    shifts = rng.integers(0, 2 * (images.shape[1] // 14) + 1, (each, 2))
    state = jax.block_until_ready(
      epoch(state, data, jnp.asarray(order), jnp.asarray(shifts))
    )
  params = jax.device_get(state[0])
  return Trained(params, _accuracy(network, params, *held))


def _epoch(network: Network, optimizer: Any, reach: int) -> Any:
  """One pass over the images, shifted by up to `reach` pixels, compiled."""

  def loss(params: Any, x: Any, labels: Any) -> Any:
    logits, _ = _both(network, params, x)
    each = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return each.mean()

  def step(data: Any, state: Any, item: Any) -> Any:
    (params, memory), (images, labels), (index, shift) = state, data, item
    x = images[index]
    room = ((0, 0), (reach, reach), (reach, reach), (0, 0))
    start = (0, shift[0], shift[1], 0)
    x = jax.lax.dynamic_slice(jnp.pad(x, room), start, x.shape)
    gradient = jax.grad(loss)(params, x, labels[index])
    change, memory = optimizer.update(gradient, memory, params)
    return (optax.apply_updates(params, change), memory), None

  def epoch(state: Any, data: Any, order: Any, shifts: Any) -> Any:
    def body(state: Any, item: Any) -> Any:
      return step(data, state, item)

    return jax.lax.scan(body, state, (order, shifts))[0]

  return jax.jit(epoch, donate_argnums=0)


def _accuracy(
  network: Network,
  params: Any,
  images: NDArray[np.uint8],
  labels: NDArray[np.int32],
) -> float:
  guess = jax.jit(lambda p, x: _both(network, p, x)[0].argmax(axis=-1))
  size = min(500, len(images))
  starts = range(0, len(images) - size + 1, size)
  right = [
    np.asarray(guess(params, images[s : s + size])) == labels[s : s + size]
    for s in starts
  ]
  return float(np.concatenate(right).mean())


def learnt(
  name: str, shape: tuple[int, ...], data_dir: str, cache: pathlib.Path
) -> tuple[Trained, dict[str, Any]]:
  """The classifier of a dataset: kept from before, or trained now.

  Returns:
    It, and the facts that it depends on.

  Raises:
    FeatureFlagError: if the set has no classes.
    DataError: if the set cannot be had.
  """
  from gan_jax import data

  images = data.load(
    name, data_dir=data_dir, image_size=shape[0], channels=shape[2]
  )
  if not isinstance(images, data.ImageSet) or len(images.classes) < 2:
    raise FeatureFlagError(
      f'--features=classifier: {name} has no classes to learn; write'
      ' classifier-DATASET with one that has, such as classifier-mnist'
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
    made = train(*_halves(name, images, shape, data_dir))
    return _leaves(made.params) | {'accuracy': np.array(made.accuracy)}

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
  name: str, images: Any, shape: tuple[int, ...], data_dir: str
) -> tuple[Any, Any, int, Any]:
  """Arguments of `train`: images, labels, classes, and what is held out."""
  from gan_jax import data

  x, labels, classes = images.array(), images.labels(), len(images.classes)
  for split in _SPLITS:
    try:
      held: Any = data.load(
        name,
        data_dir=data_dir,
        image_size=shape[0],
        channels=shape[2],
        split=split,
      )
    except data.DataFlagError:
      continue
    if held.fingerprint != images.fingerprint:  # a folder has no splits
      return x, labels, classes, (held.array(), held.labels())
  order = np.random.Generator(np.random.Philox(1)).permutation(len(x))
  out, rest = order[: len(x) // _HELD_OUT], order[len(x) // _HELD_OUT :]
  return x[rest], labels[rest], classes, (x[out], labels[out])


def _names(params: Any) -> list[str]:
  leaves = jax.tree_util.tree_leaves_with_path(params)
  return [
    jax.tree_util.keystr(path, simple=True, separator='.') for path, _ in leaves
  ]


def _leaves(params: Any) -> Arrays:
  leaves = map(np.asarray, jax.tree.leaves(params))
  return dict(zip(_names(params), leaves, strict=True))


def make(request: Request) -> Features:
  """Features of a classifier: `classifier`, or `classifier-DATASET`.

  A classifier of grey images takes colour ones channel by channel, as the
  stacked digits are: the features of the three in a row, and the product of
  their probabilities, class `(c0 classes + c1) classes + c2`.

  Raises:
    FeatureFlagError: if no dataset is named or it has no classes.
  """
  if request.weights:
    raise FeatureFlagError(
      f'--weights={request.weights}: a classifier trains itself; leave it out'
    )
  name = '-'.join(request.options) or request.dataset
  if not name:
    raise FeatureFlagError(
      f'--features={request.spec}: learns from what? Write classifier-DATASET,'
      ' such as classifier-mnist'
    )
  name, stacked = _learnt_from(name)
  shape = request.image_shape
  single = (*shape[:2], 1) if stacked else shape
  cache = request.cache / 'gan_jax_classifiers'
  trained, facts = learnt(name, single, request.data_dir, cache)
  network, classes = Network(facts['classes']), facts['classes']

  def see(weights: Any, images: Any, wanted: Sequence[str]) -> dict[str, Any]:
    n = images.shape[0]
    if stacked:
      images = jnp.moveaxis(images, 3, 1).reshape(3 * n, *single)
    logits, features = _both(network, weights, images)
    chances = jax.nn.softmax(logits)
    if stacked:
      features = features.reshape(n, 3 * DIM)
      chances = _product(chances.reshape(n, 3, classes))
    outputs = {'features': features, 'probabilities': chances}
    return {output: outputs[output] for output in wanted}

  return make_features(
    f'classifier-{name}',
    DIM * (3 if stacked else 1),
    see,
    trained.params,
    {**facts, 'stacked': stacked, 'accuracy': trained.accuracy},
    shape,
    classes=True,
  )


def _learnt_from(name: str) -> tuple[str, bool]:
  """The set that a dataset's images are of, and whether it stacks them."""
  if name.startswith('folder:'):
    return name, False
  name = name.partition('[')[0]  # of a part of a set, the whole
  base = name.removeprefix('stacked_')
  stacked = base != name
  return ('fashion_mnist' if stacked and base == 'fashion' else base), stacked


def _product(chances: Any) -> Any:
  """(n, 3, classes) to (n, classes^3) of independent draws."""
  a, b, c = (chances[:, i] for i in range(3))
  joint = a[:, :, None, None] * b[:, None, :, None] * c[:, None, None, :]
  return joint.reshape(chances.shape[0], -1)
