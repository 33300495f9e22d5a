"""What is added to a game's losses to keep it stable, or laid on D's weights.

A penalty is a mean over the batch with a norm for each example, so that it does
not change with the batch's size. It sees a critic, a pure function of samples,
and is differentiated with respect to the parameters inside it. Where D
normalises by the batch, the gradient of one example's logit is not its own
alone: use another `--norm_d` with gradient penalties.

To add one, write it and give it an entry in `REGULARIZERS`; the flag and the
tests pick it up.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

PyTree = Any
Samples = Float[Array, 'batch *shape']
Logits = Float[Array, ' batch']
Scalar = Float[Array, '']


class View(NamedTuple):
  """What a penalty on D may look at.

  Attributes:
    critic: `(samples, labels) -> logits`: D as it is in this move, with nothing
      moved by the call; of the dropout and the statistics of `real_logits`.
    critic_fake: the same D, of those of `fake_logits`.
    real: real samples as D was shown them.
    fake: generated samples likewise.
    real_label: their classes, None without.
    fake_label: likewise.
    real_logits: what D said of them.
    fake_logits: likewise.
    params: D's.
    key: to draw from.
    transform: `(samples, key) -> samples` that mean the same to a person.
    neighbours: `key -> samples` of noise a little beside that of `fake`.
    anchors: running means of the real and the generated logits, for LeCam.
  """

  critic: Callable[[Samples, Any], Logits]
  critic_fake: Callable[[Samples, Any], Logits]
  real: Samples
  fake: Samples
  real_label: Any
  fake_label: Any
  real_logits: Logits
  fake_logits: Logits
  params: PyTree
  key: Key[Array, '']
  transform: Callable[[Samples, Any], Samples]
  neighbours: Callable[[Any], Samples]
  anchors: Any


class GView(NamedTuple):
  """What a penalty on G may look at.

  Attributes:
    fake: generated samples, as G made them.
    params: G's.
    key: to draw from.
    neighbours: `key -> samples` of noise a little beside that of `fake`.
  """

  fake: Samples
  params: PyTree
  key: Key[Array, '']
  neighbours: Callable[[Any], Samples]


def squared_norms(critic: Any, x: Samples, label: Any = None) -> Logits:
  """`|grad D(x)|^2` of each example, (batch,)."""
  slope = jax.grad(lambda x: jnp.sum(critic(x, label)))(x)
  return jnp.sum(jnp.square(slope), axis=tuple(range(1, x.ndim)))


def _root(x: Any) -> Any:
  """Square root whose slope at 0 is 0, rather than infinite."""
  safe = jnp.where(x > 0, x, 1.0)
  return jnp.where(x > 0, jnp.sqrt(safe), 0.0)


def _per_example(draw: Any, x: Samples) -> Any:
  """(batch,) -> one number for each example, whatever its shape."""
  return draw.reshape(-1, *(1,) * (x.ndim - 1))


def _at(view: View, place: str) -> tuple[Samples, Any]:
  """Samples of a place, and their classes."""
  if place == 'real':
    return view.real, view.real_label
  if place == 'fake':
    return view.fake, view.fake_label
  u = jax.random.uniform(view.key, (view.real.shape[0],))
  u = _per_example(u, view.real)
  return u * view.real + (1 - u) * view.fake, view.real_label


def _norms(view: View, place: str) -> Logits:
  return _root(squared_norms(view.critic, *_at(view, place)))


def half_squared(view: View, place: str) -> Scalar:
  """R1 on real samples, R2 on generated ones: `E[|grad D|^2] / 2`.

  Reference: Mescheder et al. 2018, arXiv:1801.04406, equations 9 and 10.
  """
  return jnp.mean(squared_norms(view.critic, *_at(view, place))) / 2


def zero_centred(view: View, place: str) -> Scalar:
  """`E[|grad D|^2]` on interpolates of real and generated samples.

  Of the logit, as every penalty here. The authors' code takes the slope of the
  probability, which fades where D is sure, and weighs it by 10 on points and by
  500 on images.

  Reference: Thanh-Tung et al. 2019, arXiv:1902.03984, equation 8.
  """
  return jnp.mean(squared_norms(view.critic, *_at(view, place)))


def two_sided(view: View, place: str) -> Scalar:
  """WGAN-GP: `E[(|grad D| - 1)^2]` on interpolates, one coefficient a pair.

  Reference: Gulrajani et al. 2017, arXiv:1704.00028, equation 3.
  """
  return jnp.mean(jnp.square(_norms(view, place) - 1))


def one_sided(view: View, place: str) -> Scalar:
  """WGAN-LP: `E[max(0, |grad D| - 1)^2]`: slopes below 1 are left alone.

  Reference: Petzka et al. 2018, arXiv:1709.08894, equation 7.
  """
  return jnp.mean(jnp.square(jax.nn.relu(_norms(view, place) - 1)))


def dragan(view: View, place: str) -> Scalar:
  """DRAGAN: `E[(|grad D(x + a d)| - 1)^2]` about real samples.

  `d = s U(0, 1) / 2` for each number of a sample, s the deviation of all
  numbers of the batch; `a ~ U(0, 1)` for each example. This is what the
  authors' code does; algorithm 1 of the paper has normal noise of a deviation
  that it leaves open.

  Reference: Kodali et al. 2017, arXiv:1705.07215.
  """
  x, label = _at(view, place)
  key_a, key_d = jax.random.split(view.key)
  a = _per_example(jax.random.uniform(key_a, (x.shape[0],)), x)
  d = jax.random.uniform(key_d, (x.size,)).reshape(x.shape) * jnp.std(x) / 2
  norms = _root(squared_norms(view.critic, x + a * d, label))
  return jnp.mean(jnp.square(norms - 1))


def lecam(view: View, place: str) -> Scalar:
  """LeCam: `E[(D(x) - a_F)^2] + E[(D(G(z)) - a_R)^2]`.

  `a_R`, `a_F`: running means of D's output on real and generated samples, which
  start at 0 and move by a hundredth after each move of D. This is the paper's
  equation; both of the authors' implementations are one-sided, `relu(D(x) -
  a_F)^2` and `relu(a_R - D(G(z)))^2`, with means that are moved before they are
  used, and that for StyleGAN2 corrects them for their start.

  Reference: Tseng et al. 2021, arXiv:2104.03310, equation 4.
  """
  del place
  mean_real, mean_fake = view.anchors
  real_term = jnp.mean(jnp.square(view.real_logits - mean_fake))
  return real_term + jnp.mean(jnp.square(view.fake_logits - mean_real))


LECAM_DECAY = 0.99


def _on_real(view: View, key: Any) -> Scalar:
  again = view.critic(view.transform(view.real, key), view.real_label)
  return jnp.mean(jnp.square(again - view.real_logits))


def consistency(view: View, place: str) -> Scalar:
  """CR: `E[(D(x) - D(T(x)))^2]` on real samples, T a flip and a shift.

  Reference: Zhang et al. 2020, arXiv:1910.12027, equation 3.
  """
  del place
  return _on_real(view, view.key)


def balanced_consistency(view: View, place: str) -> Scalar:
  """bCR: CR on real and on generated samples.

  Reference: Zhao et al. 2021, arXiv:2002.04724, algorithm 1.
  """
  del place
  key_real, key_fake = jax.random.split(view.key)
  again = view.critic_fake(view.transform(view.fake, key_fake), view.fake_label)
  fake_term = jnp.mean(jnp.square(again - view.fake_logits))
  return _on_real(view, key_real) + fake_term


def latent_consistency(view: View, place: str) -> Scalar:
  """zCR, D's part: `E[(D(G(z)) - D(G(z + d)))^2]`, d normal noise.

  Reference: Zhao et al. 2021, arXiv:2002.04724, algorithm 2.
  """
  del place
  near = view.critic_fake(view.neighbours(view.key), view.fake_label)
  return jnp.mean(jnp.square(near - view.fake_logits))


def latent_diversity(view: GView) -> Scalar:
  """zCR, G's part: `-E[|G(z) - G(z + d)|^2]`, for G to heed its noise.

  Reference: Zhao et al. 2021, arXiv:2002.04724, algorithm 2.
  """
  away = jnp.square(view.neighbours(view.key) - view.fake)
  return -jnp.mean(jnp.sum(away, axis=tuple(range(1, away.ndim))))


ZCR_STD = 0.05  # of d, where z has deviation 1 or so


def _grams(params: PyTree) -> list[Any]:
  """`W' W` of every kernel as a matrix, by its shorter side.

  No kernels are the scales and biases that a class has of its own, nor the
  learned maps of `r3gan`.
  """
  grams = []
  for path, w in jax.tree_util.tree_leaves_with_path(params):
    names = [str(getattr(part, 'key', '')) for part in path]
    if names[-1] != 'kernel':
      continue
    if any(name.startswith('ConvTranspose') for name in names):
      w = w.swapaxes(-2, -1)  # outputs last, as in every other kernel
    flat = w.reshape(-1, w.shape[-1])
    flat = flat if flat.shape[0] >= flat.shape[1] else flat.T
    grams.append(flat.T @ flat)
  return grams


def orthogonal(view: View, place: str) -> Scalar:
  """`sum |W' W - I|^2` over D's kernels as matrices (inputs, outputs).

  Inputs are taps times channels. Of the smaller of `W' W` and `W W'`, the one
  that can be the identity. Brock et al. 2017 (arXiv:1609.07093), whose idea it
  is, do not square.

  Reference: Brock et al. 2019 (BigGAN), arXiv:1809.11096, equation 2.
  """
  del place
  total = jnp.float32(0.0)
  for gram in _grams(view.params):
    total += jnp.sum(jnp.square(gram - jnp.eye(len(gram))))
  return total


def orthogonal_g(view: GView) -> Scalar:
  """`sum |W' W (1 - I)|^2` over G's kernels: orthogonal, of any length.

  Reference: Brock et al. 2019 (BigGAN), arXiv:1809.11096, equation 3.
  """
  total = jnp.float32(0.0)
  for gram in _grams(view.params):
    total += jnp.sum(jnp.square(gram * (1 - jnp.eye(len(gram)))))
  return total


def clip(params: PyTree, bound: float | Scalar) -> PyTree:
  """Weight clipping: every parameter of D into [-bound, bound].

  Reference: Arjovsky et al. 2017, arXiv:1701.07875, algorithm 1.
  """
  return jax.tree.map(lambda w: jnp.clip(w, -bound, bound), params)


class Regularizer(NamedTuple):
  """One of: a penalty on D, a penalty on G, a projection of D's parameters.

  Attributes:
    weight: what the name alone stands for: that of its paper, or of its
      authors' code.
    on_d: `(View, place) -> scalar`.
    on_g: `GView -> scalar`.
    project: `(params, weight) -> params`, after each move of D.
    places: where D's slope may be looked at, the paper's first.
    images: whether its samples must be images.
  """

  weight: float
  on_d: Callable[[View, str], Scalar] | None = None
  on_g: Callable[[GView], Scalar] | None = None
  project: Callable[[PyTree, Any], PyTree] | None = None
  places: tuple[str, ...] = ('',)
  images: bool = False


_ANYWHERE = ('interpolates', 'real', 'fake')

# Spectral normalisation is a norm of the networks: --norm_d=spectral.
REGULARIZERS: dict[str, Regularizer] = {
  'r1': Regularizer(10.0, half_squared, places=('real',)),
  'r2': Regularizer(10.0, half_squared, places=('fake',)),
  'zero_centred': Regularizer(10.0, zero_centred, places=_ANYWHERE),
  'wgan_gp': Regularizer(10.0, two_sided, places=_ANYWHERE),
  'wgan_gp_one_sided': Regularizer(10.0, one_sided, places=_ANYWHERE),
  'dragan': Regularizer(10.0, dragan, places=('real',)),
  'clip': Regularizer(0.01, project=clip),
  'lecam': Regularizer(0.3, lecam),
  'cr': Regularizer(10.0, consistency, images=True),
  'bcr': Regularizer(10.0, balanced_consistency, images=True),
  'zcr': Regularizer(5.0, latent_consistency),
  'zcr_g': Regularizer(0.5, on_g=latent_diversity),
  'orthogonal': Regularizer(1e-4, orthogonal),
  'orthogonal_g': Regularizer(1e-4, on_g=orthogonal_g),
}


class Term(NamedTuple):
  """A regularizer of a game, at a place; its weight is traced (`Hyper`).

  Attributes:
    name: a key of `REGULARIZERS`.
    place: one of its places; '' for the paper's.
  """

  name: str
  place: str = ''

  @property
  def entry(self) -> Regularizer:
    """What it names."""
    return REGULARIZERS[self.name]

  @property
  def key(self) -> str:
    """How it is written: `r1`, `wgan_gp@real`."""
    return f'{self.name}@{self.place}' if self.place else self.name

  def on_d(self, view: View) -> Scalar:
    """The penalty on D at this term's place."""
    assert self.entry.on_d is not None  # those with one were chosen
    return self.entry.on_d(view, self.place or self.entry.places[0])
