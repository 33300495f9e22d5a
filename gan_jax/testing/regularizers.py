"""Conformance test of a regularizer: what all promise, and what it claims."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from gan_jax import networks as network_lib
from gan_jax.game.component import as_component
from gan_jax.game.regularizers import DView, GView, Regularizer
from gan_jax.networks.base import Networks
from gan_jax.testing import small
from gan_jax.testing.subject import Subject, neighbours, overrides

_N, _TIMES = 6, 4  # samples; so many times as many, of the same ones
_KEYS = 32  # draws that a mean is taken over
_NEAR = 8.0  # standard errors within which two means are one
_POINTS = ((0.7, -1.3), (-1.1, 0.4), (0.5, 0.0))  # theta, psi of Dirac-GAN

Penalty = Callable[..., Any]


def check_regularizer(
  regularizer: Regularizer | type[Regularizer],
  networks: Networks | None = None,
) -> list[str]:
  """Holds a regularizer to what every regularizer promises, and to its claims.

  A penalty reaches the player that it is for; is the same under `jit` (compiled
  once for all hyper-parameters) and `vmap`; is a mean over the batch, whatever
  its order and size; is finite with its gradient where networks are flat and
  where they are steep, in float32 and bfloat16. Each hyper-parameter changes
  something, a memory keeps its types, and a projection is one. In Dirac-GAN its
  penalty is the number that `dirac` says.

  Args:
    regularizer: one, or its class, which is taken at its defaults.
    networks: to try it on; None: two layers each.

  Returns:
    What it does not say of itself and was not checked, in words.

  Raises:
    AssertionError: naming the regularizer and what it breaks.

  >>> from gan_jax.game.regularizers import Orthogonal
  >>> check_regularizer(Orthogonal)
  []
  """
  regularizer = as_component('regularizers', regularizer, Regularizer)
  subject = Subject('regularizer', regularizer)
  trial = _Trial(regularizer, networks)
  for player in set(regularizer.acts_on) & {'d', 'g'}:
    _check_penalty(subject, trial, player)
  if 'project' in regularizer.acts_on:
    _check_projection(subject, trial)
  _check_dirac(subject, regularizer)
  return subject.missing


class _Samples(NamedTuple):
  real: Any
  z: Any
  label: Any


class _Trial:
  """A regularizer with networks and samples for it to look at."""

  def __init__(
    self, regularizer: Regularizer, networks: Networks | None
  ) -> None:
    self.regularizer = regularizer
    shape = small.IMAGES if regularizer.images else small.POINTS
    self.networks = networks or small.networks(shape)
    self.narrow = networks or small.networks(shape, jnp.bfloat16)
    self.samples = _samples(self.networks, _N)
    key = jax.random.key(1)
    self.g = self.networks.generator.init(key)
    self.d = self.networks.discriminator.init(jax.random.clone(key))
    # Not as it starts, where it may make no difference.
    start = regularizer.init_memory()
    self.memory = jax.tree.map(lambda x: x + jnp.asarray(0.3, x.dtype), start)

  def params(self, player: str) -> Any:
    """Of a player."""
    return (self.g if player == 'g' else self.d)[0]

  def view(
    self,
    player: str,
    params: Any,
    samples: _Samples,
    key: Key[Array, ''],
    nets: Networks,
  ) -> DView | GView:
    """What a player's penalty sees, at parameters of that player."""
    both = {'g': self.g[0], 'd': self.d[0]} | {player: params}

    def generate(z: Any) -> Any:
      how: Any = dict(train=True, key=_unused(key), label=samples.label)
      return nets.generator.apply(both['g'], self.g[1], z, **how)[0]

    def discriminate(x: Any, label: Any) -> tuple[Any, Any]:
      how: Any = dict(train=True, key=_unused(key), label=label)
      out, _ = nets.discriminator.apply(both['d'], self.d[1], x, **how)
      return out if isinstance(out, tuple) else (out, {})

    fake = generate(samples.z)
    logits, heads = discriminate(fake, samples.label)
    seen: dict[str, Any] = dict(
      fake=fake,
      fake_logits=logits,
      fake_heads=heads,
      fake_label=samples.label,
      z=samples.z,
      generate=generate,
      params=params,
      memory=self.memory,
      key=_unused(key),
      step=jnp.int32(0),
    )
    if player == 'g':
      return GView(**seen)
    real_logits, real_heads = discriminate(samples.real, samples.label)
    critic = lambda x, label: discriminate(x, label)[0]  # noqa: E731
    return DView(
      critic=critic,
      critic_fake=critic,
      real=samples.real,
      real_logits=real_logits,
      real_heads=real_heads,
      real_label=samples.label,
      **seen,
    )

  def penalty(
    self,
    player: str,
    term: Regularizer,
    params: Any,
    samples: _Samples,
    key: Key[Array, ''],
    networks: Networks | None = None,
  ) -> Any:
    """A player's penalty."""
    nets = networks or self.networks
    view: Any = self.view(player, params, samples, key, nets)
    return term.on_g(view) if player == 'g' else term.on_d(view)


def _unused(key: Key[Array, '']) -> Any:
  return jax.random.clone(key)


def _samples(networks: Networks, n: int) -> _Samples:
  rng = np.random.default_rng(0)
  real = jnp.float32(rng.normal(size=(n, *networks.sample_shape)))
  z = jnp.float32(rng.normal(size=(n, networks.latent_dim)))
  label = jnp.arange(n, dtype=jnp.int32) % networks.classes
  return _Samples(real, z, label if networks.classes else None)


def _keys(seed: int = 3) -> Any:
  return jax.random.split(jax.random.key(seed), _KEYS)


def _check_penalty(subject: Subject, trial: _Trial, player: str) -> None:
  subject.require(
    trial.regularizer.strength > 0, 'has a weight that is not positive'
  )
  _check_shape(subject, trial, player)

  def one(term: Any, params: Any, samples: Any, key: Key[Array, '']) -> Any:
    def value(params: Any) -> Any:
      return trial.penalty(player, term, params, samples, key)

    return jax.value_and_grad(value)(params)

  every = jax.jit(jax.vmap(one, (None, None, None, 0)))
  _check_transforms(subject, trial, player, every)
  _check_batch(subject, trial, player, every)
  _check_hyperparameters(subject, trial, player, every)
  _check_finite(subject, trial, player, every)


def _check_shape(subject: Subject, trial: _Trial, player: str) -> None:
  """A scalar, and a memory that keeps its shapes and types."""
  term = trial.regularizer

  def outcome(samples: Any, key: Key[Array, '']) -> Any:
    params, nets = trial.params(player), trial.networks
    view: Any = trial.view(player, params, samples, key, nets)
    penalty = term.on_g(view) if player == 'g' else term.on_d(view)
    return penalty, term.next_memory(trial.memory, view), trial.memory

  penalty, *memories = jax.eval_shape(outcome, trial.samples, jax.random.key(0))
  shape = getattr(penalty, 'shape', None)
  subject.require(
    shape == (),
    f'on_{player} returns an array of shape {shape}; take the mean over the'
    ' batch',
  )
  after, before = (
    jax.tree.map(lambda x: f'{x.dtype}{x.shape}', memory) for memory in memories
  )
  subject.require(
    after == before, f'next_memory returns {after}, and init_memory {before}'
  )


def _check_transforms(
  subject: Subject, trial: _Trial, player: str, every: Penalty
) -> None:
  """Under `jit` and `vmap` as eager; and there is something to descend."""
  term, params = trial.regularizer, trial.params(player)
  values, slopes = every(term, params, trial.samples, _keys())
  eager = [
    trial.penalty(player, term, params, trial.samples, _keys()[i])
    for i in (0, 1)
  ]
  subject.require_close(
    list(values[:2]), eager, 'another penalty under `jit` and `vmap`'
  )
  subject.require(
    any(np.abs(x).max() > 0 for x in jax.tree.leaves(slopes)),
    f"on_{player} does not depend on {player.upper()}'s parameters",
  )


def _mean(values: Any) -> tuple[float, float]:
  """A mean over draws, and what it may be off by."""
  numbers = np.asarray(values, np.float64)
  spread = numbers.std() / np.sqrt(len(numbers))
  return numbers.mean(), _NEAR * spread + 1e-5 * abs(numbers).mean() + 1e-7


def _check_batch(
  subject: Subject, trial: _Trial, player: str, every: Penalty
) -> None:
  """A mean over the batch: over draws, for each example has its own."""
  term, params = trial.regularizer, trial.params(player)
  mean, slack = _mean(every(term, params, trial.samples, _keys())[0])
  turned = jax.tree.map(lambda x: x[::-1], trial.samples)
  # Of other draws, which are one for each place in the batch.
  again, more = _mean(every(term, params, turned, _keys(4))[0])
  subject.require(
    abs(again - mean) < slack + more,
    f'depends on the order of the batch: {mean:.6g}, and {again:.6g} if turned',
  )
  tiled = jax.tree.map(
    lambda x: jnp.tile(x, (_TIMES, *(1,) * (x.ndim - 1))), trial.samples
  )
  larger = jax.jit(
    jax.vmap(lambda *args: trial.penalty(player, *args), (None, None, None, 0))
  )
  again, more = _mean(larger(term, params, tiled, _keys(5)))
  subject.require(
    abs(again - mean) < slack + more,
    f'changes with the size of the batch ({mean:.6g}, and {again:.6g} of'
    f' {_TIMES} times as many samples); take a mean over it, of a norm for each'
    ' example',
  )


def _check_hyperparameters(
  subject: Subject, trial: _Trial, player: str, every: Penalty
) -> None:
  """Each changes something; the weight does outside."""
  params = trial.params(player)
  before, _ = every(trial.regularizer, params, trial.samples, _keys())
  for path, other in neighbours(trial.regularizer):
    after, _ = every(other, params, trial.samples, _keys())
    subject.require(
      path == 'weight' or not np.array_equal(before, after),
      f'`{path}` is a hyper-parameter that changes nothing',
    )
  subject.require(
    every._cache_size() == 1,  # type: ignore[attr-defined]
    'is compiled anew for other samples or hyper-parameters',
  )


def _check_finite(
  subject: Subject, trial: _Trial, player: str, every: Penalty
) -> None:
  """With its gradient, of flat and of steep networks, in both precisions."""

  def narrow(term: Any, params: Any, samples: Any, keys: Any) -> Any:
    def value(params: Any) -> Any:
      nets = trial.narrow
      return trial.penalty(player, term, params, samples, keys[0], nets)

    return jax.value_and_grad(value)(params)

  for name, function in (('float32', every), ('bfloat16', jax.jit(narrow))):
    for size in (0.0, 1e2):  # of each of two layers
      params = jax.tree.map(lambda w, s=size: s * w, trial.params(player))
      outcome = function(trial.regularizer, params, trial.samples, _keys())
      what = f'on_{player} or its gradient, weights times {size}, in {name}'
      subject.require_finite(outcome, what)


def _check_projection(subject: Subject, trial: _Trial) -> None:
  """It moves what is outside of its set, and nothing twice."""
  term = trial.regularizer
  far = jax.tree.map(lambda w: 100 * w, trial.params('d'))
  project = jax.jit(lambda term, params: term.project_d(params))
  once = project(term, far)
  kinds = [jax.tree.map(lambda w: (w.shape, w.dtype), x) for x in (once, far)]
  subject.require(kinds[0] == kinds[1], 'project_d changes shapes or types')
  subject.require_finite(once, 'project_d')
  subject.require_close(term.project_d(far), once, 'project_d under `jit`')
  subject.require_close(project(term, once), once, 'project_d moves twice')
  subject.require(
    any(map(_differ, jax.tree.leaves(once), jax.tree.leaves(far))),
    'project_d moves nothing, of parameters times 100',
  )
  for path, other in neighbours(term):
    moved = project(other, far)
    subject.require(
      any(map(_differ, jax.tree.leaves(once), jax.tree.leaves(moved)))
      or (path == 'weight' and set(term.acts_on) & {'d', 'g'}),
      f'`{path}` is a hyper-parameter that changes nothing',
    )


def _differ(a: Any, b: Any) -> bool:
  return not np.array_equal(a, b)


def _check_dirac(subject: Subject, term: Regularizer) -> None:
  """The number that it says in Dirac-GAN."""
  if not overrides(term, Regularizer, 'dirac'):
    subject.lacks(
      'dirac',
      'give `dirac(self, theta, psi) -> float | None`, its penalty on D where G'
      ' is at theta, D is `psi x` and the data are at 0',
    )
    return
  stated = [term.dirac(*point) for point in _POINTS]
  if 'd' not in term.acts_on or None in stated:
    return
  trial = _Trial(term, network_lib.build('dirac', (1,), bounded=False))
  trial.memory = term.init_memory()
  samples = _Samples(jnp.zeros((_N, 1)), jnp.zeros((_N, 8)), None)

  @jax.jit
  def penalty(theta: Any, psi: Any) -> Any:
    trial.g = {'theta': theta}, {}
    return trial.penalty('d', term, {'psi': psi}, samples, jax.random.key(5))

  slopes = [penalty(*map(jnp.float32, point)) for point in _POINTS]
  subject.require_close(
    slopes, stated, 'another penalty in Dirac-GAN than `dirac` says'
  )
