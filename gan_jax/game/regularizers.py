"""Regularizers: what is added to the losses, or laid on D's weights.

A penalty is a mean over the batch with a norm for each example, so that it does
not change with the batch's size. It sees a critic, a pure function of samples,
and is differentiated with respect to the parameters inside it. Where D
normalises by the batch, the gradient of one example's logit is not its own
alone: use another normalisation with gradient penalties.

To add one, derive a class from `Regularizer`, override what it has (`on_d`,
`on_g`, `project_d`, a memory), say what the tests need of it (`dirac`), and
give it an entry in `REGULARIZERS`; the flag and the tests find it there (the
tests are `gan_jax.testing.check_regularizer`). Spectral normalisation is a norm
of the networks.
"""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from gan_jax.game.augment import consistency_view
from gan_jax.game.component import Component, static
from gan_jax.networks.base import Params
from gan_jax.runtime.errors import ArgumentError

PyTree = Any
Samples = Float[Array, 'n *shape']
Noise = Float[Array, 'n latent_dim']
Logits = Float[Array, ' n']
Label = Int[Array, ' n'] | None
Scalar = Float[Array, '']
Critic = Callable[[Samples, Label], Logits]


class DView(NamedTuple):
  """What a penalty on D may look at: samples as D saw them.

  They are augmented, packed and with instance noise.

  Attributes:
    critic: `(samples, labels) -> logits`: D as it is in this update, with the
      dropout and the statistics of `real_logits`; nothing moves by the call.
    critic_fake: the same D, with those of `fake_logits`.
    real: real samples.
    real_logits: D's outputs on them.
    real_heads: D's further outputs on them, by name.
    real_label: their classes, None without.
    fake: generated samples, and likewise what follows.
    fake_logits: D's outputs on them.
    fake_heads: further outputs.
    fake_label: their classes.
    z: the noise that they were generated from.
    generate: G at `fake_label`, seen as `fake` is; frozen.
    params: D's.
    memory: what this regularizer remembers.
    key: to draw from.
    step: of the game.
  """

  critic: Critic
  critic_fake: Critic
  real: Samples
  real_logits: Logits
  real_heads: dict[str, Array]
  real_label: Label
  fake: Samples
  fake_logits: Logits
  fake_heads: dict[str, Array]
  fake_label: Label
  z: Noise
  generate: Callable[[Noise], Samples]
  params: Params
  memory: PyTree
  key: Key[Array, '']
  step: Int[Array, '']


class GView(NamedTuple):
  """What a penalty on G may look at: samples as G made them.

  Attributes:
    fake: generated samples, before augmentation, packing and noise.
    fake_logits: D's outputs on them, as D is shown them.
    fake_heads: D's further outputs on them, by name.
    fake_label: their classes, None without.
    z: the noise that they were generated from.
    generate: G at `fake_label`, differentiable.
    params: G's.
    memory: what this regularizer remembers.
    key: to draw from.
    step: of the game.
  """

  fake: Samples
  fake_logits: Logits
  fake_heads: dict[str, Array]
  fake_label: Label
  z: Noise
  generate: Callable[[Noise], Samples]
  params: Params
  memory: PyTree
  key: Key[Array, '']
  step: Int[Array, '']


class Regularizer(Component):
  """What is added to the losses, or laid on D's parameters.

  A subclass overrides `on_d`, `on_g` or `project_d`, and has a float field
  `weight` if it adds to a loss: the trainer multiplies by it and logs the
  penalty itself. A static field `every` makes D's term lazy: it is taken every
  so many steps, so many times as heavy.

  Attributes:
    images: whether samples must be images.
    slopes: whether it looks at the slope of a logit at its own sample, which a
      D that normalises by the batch does not have.

  >>> class LogitSize(Regularizer):
  ...   weight: float = 0.1
  ...
  ...   def on_d(self, view):
  ...     return jnp.mean(jnp.square(view.real_logits))
  >>> LogitSize().acts_on
  ('d',)
  """

  images: ClassVar[bool] = False
  slopes: ClassVar[bool] = False

  def on_d(self, view: DView) -> Scalar:
    """The penalty on D, before its weight."""
    raise NotImplementedError

  def on_g(self, view: GView) -> Scalar:
    """The penalty on G, before its weight."""
    raise NotImplementedError

  def project_d(self, params: Params) -> Params:
    """D's parameters after each of its updates, laid into a set."""
    raise NotImplementedError

  def init_memory(self) -> PyTree:
    """What it remembers at the start; checkpointed."""
    return ()

  def next_memory(self, memory: PyTree, view: DView | GView) -> PyTree:
    """What it remembers after an update of a player whose loss it adds to."""
    del view
    return memory

  def dirac(self, theta: float, psi: float) -> float | None:
    """Its penalty on D in Dirac-GAN, in float64, written independently.

    For the tests. There G(z) is theta, D(x) is `psi x`, and the data are at 0;
    its memory is as at the start. None where it finds nothing to act on.
    """
    raise NotImplementedError

  @property
  def acts_on(self) -> tuple[str, ...]:
    """Those of `d`, `g`, `project` that it overrides."""
    kinds = {'d': 'on_d', 'g': 'on_g', 'project': 'project_d'}
    return tuple(
      kind
      for kind, method in kinds.items()
      if getattr(type(self), method) is not getattr(Regularizer, method)
    )

  @property
  def strength(self) -> Any:
    """The weight of its terms."""
    return getattr(self, 'weight')  # noqa: B009, a field of subclasses

  @property
  def lazy(self) -> int:
    """Steps from one taking of D's term to the next."""
    return int(getattr(self, 'every', 1))

  def check(self) -> None:
    """Refuses one that does nothing, or whose term has no weight."""
    if not self.acts_on:
      raise ArgumentError(
        'regularizers', self.name, 'overrides none of on_d, on_g, project_d'
      )
    if set(self.acts_on) & {'d', 'g'} and not hasattr(self, 'weight'):
      raise ArgumentError(
        'regularizers',
        self.name,
        'adds to a loss and has no weight; give it a field `weight: float`',
      )
    every = getattr(self, 'every', 1)
    if not isinstance(every, int) or every < 1:
      raise ArgumentError('every', every, 'use a whole number of 1 or more')
    if every > 1 and 'd' not in self.acts_on:
      raise ArgumentError(
        'every', every, 'only terms of D are lazy; leave it 1'
      )


def squared_norms(critic: Critic, x: Samples, label: Label = None) -> Logits:
  """`|grad D(x)|^2` of each example, (n,)."""
  slope = jax.grad(lambda x: jnp.sum(critic(x, label)))(x)
  return jnp.sum(jnp.square(slope), axis=tuple(range(1, x.ndim)))


def _root(x: Logits) -> Logits:
  """Square root whose slope at 0 is 0, rather than infinite."""
  safe = jnp.where(x > 0, x, 1.0)
  return jnp.where(x > 0, jnp.sqrt(safe), 0.0)


def _per_example(draw: Logits, x: Samples) -> Any:
  """(n,) -> one number for each example, whatever its shape."""
  return draw.reshape(-1, *(1,) * (x.ndim - 1))


PLACES = ('interpolates', 'real', 'fake')


class _Slopes(Regularizer):
  """A penalty on D's slope at real samples, generated ones or between them."""

  slopes: ClassVar[bool] = True
  usual: ClassVar[str] = 'interpolates'  # the paper's place
  places: ClassVar[tuple[str, ...]] = PLACES

  weight: float = 10.0
  place: str = static('')  # empty: the paper's
  every: int = static(1)

  @property
  def name(self) -> str:
    """With the place, if it is not the paper's: `wgan_gp@real`."""
    own = super().name
    return own if self.place in ('', self.usual) else f'{own}@{self.place}'

  def check(self) -> None:
    """Refuses a place that it does not have."""
    super().check()
    if self.place and self.place not in self.places:
      raise ArgumentError(
        'place', self.place, f'use one of {", ".join(self.places)}'
      )

  def _at(self, view: DView) -> tuple[Samples, Label]:
    """Samples of the place, and their classes."""
    place = self.place or self.usual
    if place == 'real':
      return view.real, view.real_label
    if place == 'fake':
      return view.fake, view.fake_label
    u = jax.random.uniform(view.key, (view.real.shape[0],))
    u = _per_example(u, view.real)
    return u * view.real + (1 - u) * view.fake, view.real_label

  def _squares(self, view: DView) -> Logits:
    return squared_norms(view.critic, *self._at(view))


class R1(_Slopes):
  """R1: `E[|grad D|^2] / 2` on real samples.

  Reference: Mescheder et al. 2018, arXiv:1801.04406, equation 9.
  """

  usual: ClassVar[str] = 'real'
  places: ClassVar[tuple[str, ...]] = ('real',)

  def on_d(self, view: DView) -> Scalar:
    """`E[|grad D|^2] / 2`."""
    return jnp.mean(self._squares(view)) / 2

  def dirac(self, theta: float, psi: float) -> float | None:
    """`psi^2 / 2`."""
    del theta
    return psi**2 / 2


class R2(R1):
  """R2: `E[|grad D|^2] / 2` on generated samples.

  Reference: Mescheder et al. 2018, arXiv:1801.04406, equation 10.
  """

  usual: ClassVar[str] = 'fake'
  places: ClassVar[tuple[str, ...]] = ('fake',)


class ZeroCentred(_Slopes):
  """`E[|grad D|^2]` on interpolates of real and generated samples.

  Of the logit, as every penalty here. The authors' code takes the slope of the
  probability, which fades where D is sure, and weighs it by 10 on points and by
  500 on images.

  Reference: Thanh-Tung et al. 2019, arXiv:1902.03984, equation 8.
  """

  def on_d(self, view: DView) -> Scalar:
    """`E[|grad D|^2]`."""
    return jnp.mean(self._squares(view))

  def dirac(self, theta: float, psi: float) -> float | None:
    """`psi^2`."""
    del theta
    return psi**2


class WganGp(_Slopes):
  """WGAN-GP: `E[(|grad D| - 1)^2]` on interpolates, one coefficient a pair.

  Reference: Gulrajani et al. 2017, arXiv:1704.00028, equation 3.
  """

  def on_d(self, view: DView) -> Scalar:
    """`E[(|grad D| - 1)^2]`."""
    return jnp.mean(jnp.square(_root(self._squares(view)) - 1))

  def dirac(self, theta: float, psi: float) -> float | None:
    """`(|psi| - 1)^2`."""
    del theta
    return (abs(psi) - 1) ** 2


class WganGpOneSided(_Slopes):
  """WGAN-LP: `E[max(0, |grad D| - 1)^2]`: slopes below 1 are left alone.

  Reference: Petzka et al. 2018, arXiv:1709.08894, equation 7.
  """

  def on_d(self, view: DView) -> Scalar:
    """`E[max(0, |grad D| - 1)^2]`."""
    steep = jax.nn.relu(_root(self._squares(view)) - 1)
    return jnp.mean(jnp.square(steep))

  def dirac(self, theta: float, psi: float) -> float | None:
    """`max(0, |psi| - 1)^2`."""
    del theta
    return max(0.0, abs(psi) - 1) ** 2


class Dragan(_Slopes):
  """DRAGAN: `E[(|grad D(x + a d)| - 1)^2]` about real samples.

  `d = s U(0, 1) / 2` for each number of a sample, s the standard deviation of
  all numbers of the batch; `a ~ U(0, 1)` for each example. This is what the
  authors' code does; algorithm 1 of the paper has normal noise of a standard
  deviation that it leaves open.

  Reference: Kodali et al. 2017, arXiv:1705.07215.
  """

  usual: ClassVar[str] = 'real'
  places: ClassVar[tuple[str, ...]] = ('real',)

  def on_d(self, view: DView) -> Scalar:
    """`E[(|grad D(x + a d)| - 1)^2]`."""
    x, label = self._at(view)
    key_a, key_d = jax.random.split(view.key)
    a = _per_example(jax.random.uniform(key_a, (x.shape[0],)), x)
    d = jax.random.uniform(key_d, (x.size,)).reshape(x.shape) * jnp.std(x) / 2
    norms = _root(squared_norms(view.critic, x + a * d, label))
    return jnp.mean(jnp.square(norms - 1))

  def dirac(self, theta: float, psi: float) -> float | None:
    """`(|psi| - 1)^2`, wherever it looks."""
    del theta
    return (abs(psi) - 1) ** 2


class Clip(Regularizer):
  """Weight clipping: every parameter of D into [-bound, bound].

  Attributes:
    bound: the largest parameter.

  Reference: Arjovsky et al. 2017, arXiv:1701.07875, algorithm 1.
  """

  bound: float = 0.01

  def project_d(self, params: Params) -> Params:
    """Clips D's parameters."""
    bound = jnp.asarray(self.bound)
    return jax.tree.map(lambda w: jnp.clip(w, -bound, bound), params)

  def dirac(self, theta: float, psi: float) -> float | None:
    """No penalty."""
    del theta, psi
    return 0.0


class Anchors(NamedTuple):
  """Running means of D's output, which LeCam remembers."""

  real: Any
  fake: Any


class Lecam(Regularizer):
  """LeCam: `E[(D(x) - a_F)^2] + E[(D(G(z)) - a_R)^2]`.

  `a_R`, `a_F`: running means of D's output on real and generated samples, which
  start at 0 and move by a hundredth after each update of D. This is the paper's
  equation; both of the authors' implementations are one-sided, `relu(D(x) -
  a_F)^2` and `relu(a_R - D(G(z)))^2`, with means that are moved before they are
  used, and that for StyleGAN2 corrects them for their start.

  Reference: Tseng et al. 2021, arXiv:2104.03310, equation 4.
  """

  DECAY: ClassVar[float] = 0.99

  weight: float = 0.3
  every: int = static(1)

  def on_d(self, view: DView) -> Scalar:
    """`E[(D(x) - a_F)^2] + E[(D(G(z)) - a_R)^2]`."""
    real_term = jnp.mean(jnp.square(view.real_logits - view.memory.fake))
    fake_term = jnp.mean(jnp.square(view.fake_logits - view.memory.real))
    return real_term + fake_term

  def dirac(self, theta: float, psi: float) -> float | None:
    """`(psi theta)^2`: both means are at 0."""
    return (psi * theta) ** 2

  def init_memory(self) -> Anchors:
    """Both means at 0."""
    return Anchors(jnp.float32(0), jnp.float32(0))

  def next_memory(self, memory: Anchors, view: DView | GView) -> Anchors:
    """Both means moved by a hundredth."""
    assert isinstance(view, DView)
    real, fake = jnp.mean(view.real_logits), jnp.mean(view.fake_logits)
    return Anchors(
      real + self.DECAY * (memory.real - real),
      fake + self.DECAY * (memory.fake - fake),
    )


def _real_consistency(view: DView, key: Key[Array, '']) -> Scalar:
  again = view.critic(consistency_view(view.real, key), view.real_label)
  return jnp.mean(jnp.square(again - view.real_logits))


class Cr(Regularizer):
  """CR: `E[(D(x) - D(T(x)))^2]` on real samples, T a flip and a shift.

  Reference: Zhang et al. 2020, arXiv:1910.12027, equation 3.
  """

  images: ClassVar[bool] = True

  weight: float = 10.0
  every: int = static(1)

  def on_d(self, view: DView) -> Scalar:
    """`E[(D(x) - D(T(x)))^2]`."""
    return _real_consistency(view, view.key)

  def dirac(self, theta: float, psi: float) -> float | None:
    """None: there are no images."""
    del theta, psi
    return None


class Bcr(Cr):
  """bCR: CR on real and on generated samples.

  Reference: Zhao et al. 2021, arXiv:2002.04724, algorithm 1.
  """

  def on_d(self, view: DView) -> Scalar:
    """CR on both."""
    key_real, key_fake = jax.random.split(view.key)
    moved = consistency_view(view.fake, key_fake)
    again = view.critic_fake(moved, view.fake_label)
    fake_term = jnp.mean(jnp.square(again - view.fake_logits))
    return _real_consistency(view, key_real) + fake_term


ZCR_STD = 0.05  # of d, where z has a standard deviation of 1 or so


def _near(z: Noise, key: Key[Array, '']) -> Noise:
  return z + ZCR_STD * jax.random.normal(key, (z.size,)).reshape(z.shape)


class Zcr(Regularizer):
  """zCR, D's part: `E[(D(G(z)) - D(G(z + d)))^2]`, d normal noise.

  Reference: Zhao et al. 2021, arXiv:2002.04724, algorithm 2.
  """

  weight: float = 5.0
  every: int = static(1)

  def on_d(self, view: DView) -> Scalar:
    """`E[(D(G(z)) - D(G(z + d)))^2]`."""
    near = view.generate(_near(view.z, view.key))
    again = view.critic_fake(near, view.fake_label)
    return jnp.mean(jnp.square(again - view.fake_logits))

  def dirac(self, theta: float, psi: float) -> float | None:
    """0: G heeds no noise, and a neighbour is the same point."""
    del theta, psi
    return 0.0


class ZcrG(Regularizer):
  """zCR, G's part: `-E[|G(z) - G(z + d)|^2]`, for G to heed its noise.

  Reference: Zhao et al. 2021, arXiv:2002.04724, algorithm 2.
  """

  weight: float = 0.5

  def on_g(self, view: GView) -> Scalar:
    """`-E[|G(z) - G(z + d)|^2]`."""
    away = jnp.square(view.generate(_near(view.z, view.key)) - view.fake)
    return -jnp.mean(jnp.sum(away, axis=tuple(range(1, away.ndim))))

  def dirac(self, theta: float, psi: float) -> float | None:
    """No penalty on D."""
    del theta, psi
    return 0.0


def _grams(params: Params) -> list[Any]:
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
  if not grams:
    raise ArgumentError(
      'regularizers',
      'orthogonal',
      'finds no array named `kernel` among the parameters to act on',
    )
  return grams


class Orthogonal(Regularizer):
  """`sum |W' W - I|^2` over D's kernels as matrices (inputs, outputs).

  Inputs are taps times channels. Of the smaller of `W' W` and `W W'`, the one
  that can be the identity. Brock et al. 2017 (arXiv:1609.07093), whose idea it
  is, do not square.

  Reference: Brock et al. 2019 (BigGAN), arXiv:1809.11096, equation 2.
  """

  weight: float = 1e-4
  every: int = static(1)

  def on_d(self, view: DView) -> Scalar:
    """`sum |W' W - I|^2`."""
    total = jnp.float32(0.0)
    for gram in _grams(view.params):
      total += jnp.sum(jnp.square(gram - jnp.eye(len(gram))))
    return total

  def dirac(self, theta: float, psi: float) -> float | None:
    """None: there is no kernel."""
    del theta, psi
    return None


class OrthogonalG(Regularizer):
  """`sum |W' W (1 - I)|^2` over G's kernels: orthogonal, of any length.

  Reference: Brock et al. 2019 (BigGAN), arXiv:1809.11096, equation 3.
  """

  weight: float = 1e-4

  def on_g(self, view: GView) -> Scalar:
    """`sum |W' W (1 - I)|^2`."""
    total = jnp.float32(0.0)
    for gram in _grams(view.params):
      total += jnp.sum(jnp.square(gram * (1 - jnp.eye(len(gram)))))
    return total

  def dirac(self, theta: float, psi: float) -> float | None:
    """None: there is no kernel."""
    del theta, psi
    return None


REGULARIZERS: dict[str, type[Regularizer]] = {
  'r1': R1,
  'r2': R2,
  'zero_centred': ZeroCentred,
  'wgan_gp': WganGp,
  'wgan_gp_one_sided': WganGpOneSided,
  'dragan': Dragan,
  'clip': Clip,
  'lecam': Lecam,
  'cr': Cr,
  'bcr': Bcr,
  'zcr': Zcr,
  'zcr_g': ZcrG,
  'orthogonal': Orthogonal,
  'orthogonal_g': OrthogonalG,
}

r1 = R1
r2 = R2
zero_centred = ZeroCentred
wgan_gp = WganGp
wgan_gp_one_sided = WganGpOneSided
dragan = Dragan
clip = Clip
lecam = Lecam
cr = Cr
bcr = Bcr
zcr = Zcr
zcr_g = ZcrG
orthogonal = Orthogonal
orthogonal_g = OrthogonalG
