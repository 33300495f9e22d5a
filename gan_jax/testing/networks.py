"""Conformance tests of networks and of architectures, which declare more."""

import functools
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from gan_jax.networks import (
  ARCHITECTURES,
  CONDITIONINGS,
  Architecture,
  Net,
  Networks,
  build,
)
from gan_jax.networks import check_networks as check_shapes
from gan_jax.networks.base import packed_shape
from gan_jax.networks.layers import NORMS
from gan_jax.runtime.errors import ArgumentError

_N, _CLASSES = 6, 5
_WIDTH = 4  # of architectures whose width can be set
# An architecture makes these samples, or says that it does not.
_SAMPLES = ((1,), (2,), (8, 8, 1), (8, 12, 1), (16, 16, 3), (24, 24, 3))
_PLAYERS = ('generator', 'discriminator')


def check_networks(
  networks: Architecture | Networks, *, run: bool = True, members: bool = True
) -> None:
  """Holds networks to what all promise, and an architecture to its own words.

  Networks return what `gan_jax.networks.check_networks` asks for. Outside of
  training they are functions of one sample each and their statistics stay; in
  training these move. They are pure, compiled once and differentiable twice.
  Every parameter has a slope. Far inputs give finite outputs, and images in
  [-1, 1]. Under `vmap` they are a loop over members.

  An architecture builds such networks for its `samples`, in float32 and
  bfloat16, alone and in packs, and refuses other samples in words. Each option
  that it declares changes the network that it is of. Labels change what both
  return, each class by parameters of its own.

  Args:
    networks: an architecture, which is built small; or networks.
    run: whether to run the networks; otherwise they are traced alone.
    members: whether to run them under `vmap` too, which costs the most.

  Raises:
    AssertionError: saying in words what is missing or broken.

  >>> from gan_jax.networks import ARCHITECTURES
  >>> check_networks(ARCHITECTURES['dirac'])
  """
  if isinstance(networks, Networks):
    pairs = {'networks': networks}
  else:
    family = _Family(networks)
    family.check(run)
    of_kinds = {len(shape): shape for shape in reversed(networks.samples)}
    pairs = {f'{family.name}, {s}': family.build(s) for s in of_kinds.values()}
  for name, pair in pairs.items():
    _Pair(name, pair).check(run, members)


class _Subject:
  """What is under test, under the name that messages give it."""

  name: str

  def require(self, holds: bool | np.bool_ | jax.Array, message: str) -> None:
    if not holds:
      raise AssertionError(f'{self.name}: {message}')

  def require_shapes(self, networks: Networks, packing: int = 1) -> None:
    try:
      check_shapes(networks, packing=packing)
    except ArgumentError as error:
      raise AssertionError(f'{self.name}: {error}') from error


class _Family(_Subject):
  """An architecture, by what it declares."""

  def __init__(self, architecture: Architecture) -> None:
    names = [n for n, value in ARCHITECTURES.items() if value is architecture]
    self.name = f'architecture {names[0]}' if names else 'the architecture'
    self.architecture = architecture
    self._build = functools.cache(self._build)  # type: ignore[method-assign]

  def build(self, shape: tuple[int, ...], **options: Any) -> Networks:
    """Small networks; the same ones for the same options."""
    if self.architecture.width:
      options = {'width': _WIDTH} | options
    return self._build(shape, **options)

  def _build(self, shape: tuple[int, ...], **options: Any) -> Networks:
    bounded = len(shape) == 3
    try:
      return build(self.architecture, shape, bounded=bounded, **options)
    except ArgumentError as error:
      given = ''.join(f', {k}={v!r}' for k, v in options.items())
      raise AssertionError(
        f'{self.name}: is not built for samples of {shape}{given}: {error}'
      ) from error

  def check(self, run: bool) -> None:
    self._check_declaration()
    for shape in self.architecture.samples:
      self.require_shapes(self.build(shape))
      self._check_packs(shape)
      self._check_narrow(shape, run)
    self._check_refusals()
    self._check_options()
    self._check_labels(run)

  def _check_declaration(self) -> None:
    kind = type(self.architecture).__name__
    self.require(
      isinstance(self.architecture, Architecture),
      f'is a {kind}; give `Architecture(design, samples=((8, 8, 1),))`',
    )
    self.require(
      bool(self.architecture.samples),
      'names no samples that it could be tested with; give'
      ' `samples=((8, 8, 1),)`, or `samples=((2,),)` for points, the cheapest'
      ' that it makes first',
    )
    for option in ('norms_g', 'norms_d'):
      unknown = {*getattr(self.architecture, option)} - {*NORMS}
      self.require(
        not unknown, f'{option} names what is no norm: {sorted(unknown)}'
      )

  def _check_packs(self, shape: tuple[int, ...]) -> None:
    """D grows where it meets the samples, to three times, and G does not."""
    alone, packed = self.build(shape), self.build(shape, packing=3)
    logits, *_ = _jaxpr(packed.discriminator, packed_shape(shape, 3)).out_avals
    self.require(logits.shape == (_N,), f'D of packs has logits {logits.shape}')
    self.require(
      _sizes(packed.generator) == _sizes(alone.generator),
      'has another G where D sees packs',
    )
    one, three = _sizes(alone.discriminator), _sizes(packed.discriminator)
    self.require(
      [*one] == [*three], f'has a D of {[*three]} for packs, {[*one]} without'
    )
    for path, size in one.items():
      grown = {n / m for m, n in zip(size, three[path], strict=True)} - {1}
      self.require(
        grown <= {3},
        f'{path} of its D is {three[path]} for packs of 3, {size} without',
      )

  def _check_narrow(self, shape: tuple[int, ...], run: bool) -> None:
    """bfloat16 inside alone; and the range of float32 at the outputs."""
    narrow = self.build(shape, dtype=jnp.bfloat16)
    pair = _Pair(f'{self.name} in bfloat16', narrow)
    types = jax.eval_shape(
      lambda g, d, z, x: pair.trained([g, d], z, x),
      *map(_abstract, narrow[:2]),
      *(pair.z, pair.x),
    )
    self.require(
      all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(types)),
      'returns others than float32 where it computes in bfloat16',
    )
    if run:
      pair.check_far_inputs(pair.drawn_state())

  def _check_refusals(self) -> None:
    for shape in _SAMPLES:
      try:
        build(self.architecture, shape, bounded=len(shape) == 3)
      except ArgumentError:
        continue
      except Exception as error:
        raise AssertionError(
          f'{self.name}: raises {type(error).__name__} for samples of {shape}'
          f' ({error}); let its design raise an ArgumentError for what it does'
          ' not make'
        ) from error

  def _check_options(self) -> None:
    family = self.architecture
    if family.width:
      self._check_effect({'width': _WIDTH}, {'width': 2 * _WIDTH}, _PLAYERS)
    if family.depth:
      self._check_effect({'depth': 1}, {'depth': 3}, _PLAYERS)
    for norm in sorted({*family.norms_g, *family.norms_d} - {'none'}):
      norms = {'norm_g': family.norms_g, 'norm_d': family.norms_d}
      options = {option: norm for option in norms if norm in norms[option]}
      plain = {o: 'none' for o in options if 'none' in norms[o]}
      players = [p for o, p in zip(norms, _PLAYERS, strict=True) if o in plain]
      self._check_effect(plain, options, players)

  def _check_effect(
    self,
    options: dict[str, Any],
    others: dict[str, Any],
    players: tuple[str, ...] | list[str],
  ) -> None:
    """Other options make other networks."""
    shape = self.architecture.samples[0]
    one, other = self.build(shape, **options), self.build(shape, **others)
    for player in players:
      size = shape if player == 'discriminator' else (one.latent_dim,)
      self.require(
        _masked(_jaxpr(getattr(one, player), size))
        != _masked(_jaxpr(getattr(other, player), size)),
        f'takes {[*others]}, but its {player} is the same with {options} and'
        f' {others}',
      )

  def _check_labels(self, run: bool) -> None:
    """An architecture that declares labels depends on them."""
    shape, family = self.architecture.samples[0], self.architecture
    options: dict[str, Any] = {'classes': _CLASSES}
    if not family.labels:
      return
    if 'none' in family.norms_d:  # a spectral norm is of all classes at once
      options['norm_d'] = 'none'
    for conditioning in sorted({*CONDITIONINGS} - {'none'}):
      networks = self.build(shape, conditioning=conditioning, **options)
      pair = _Pair(f'{self.name}, {conditioning=}', networks)
      if run and conditioning == 'projection':
        pair.check_labels()
      else:  # the embedding is the same for all architectures
        jax.make_jaxpr(pair.forward)(pair.drawn_state(), *pair.inputs)


class _Outcome(NamedTuple):
  """What updates read of two networks.

  Attributes:
    samples: of G, outside of training.
    logits: of D on other samples, likewise.
    slope: of what D returns for G's samples, by the parameters of both.
    moved: statistics of both, in training.
  """

  samples: Any
  logits: Any
  slope: Any
  moved: Any


class _Pair(_Subject):
  """Two networks, with parameters and inputs to start from."""

  def __init__(self, name: str, networks: Networks) -> None:
    self.name, self.networks = name, networks
    rng, n = np.random.default_rng(0), networks.classes
    # NumPy arrays: an operation between two programs would be one more.
    self.z: Any = np.float32(rng.normal(size=(_N, networks.latent_dim)))
    self.x: Any = np.float32(rng.uniform(-1, 1, (_N, *networks.sample_shape)))
    self.label = np.arange(_N, dtype=np.int32) % n if n else None
    self.inputs = self.z, self.x, self.label
    self.compiled: Any = jax.jit(self._outcome)

  def check(self, run: bool, members: bool) -> None:
    self.require_shapes(self.networks)
    self._check_still()
    self._check_purity()
    self._check_second_slopes()
    if not run:
      return
    outcome = self.run(self.state, *self.inputs)
    self._check_finite(outcome)
    self._check_slope(outcome)
    self._check_moved(outcome)
    self._check_order(outcome)
    self.check_far_inputs(self.state)
    self._check_compiled_once(outcome)
    if members:
      self._check_members()

  @functools.cached_property
  def state(self) -> Any:
    """Parameters and statistics of both, such that no layer is an identity."""

    def init(key: Key[Array, '']) -> Any:
      keys = jax.random.split(key)
      return [self._net(p).init(k) for p, k in zip(_PLAYERS, keys, strict=True)]

    state = jax.device_get(jax.jit(init)(jax.random.key(0)))
    return [(_disturbed(params), stats) for params, stats in state]

  def drawn_state(self) -> Any:
    """The same, without a program that initialises them."""

    def fill(path: Any, leaf: Any) -> Any:
      name = getattr(path[-1], 'key', '')
      ones = leaf.ndim < 2 and name not in ('bias', 'mean')
      return np.full(leaf.shape, int(ones), leaf.dtype)

    state = [
      jax.tree_util.tree_map_with_path(fill, _abstract(self._net(player)))
      for player in _PLAYERS
    ]
    return [(_disturbed(params), stats) for params, stats in state]

  def _net(self, player: str) -> Net:
    net: Net = getattr(self.networks, player)
    return net

  def _samples(self, g: Any, z: Any, label: Any, **options: Any) -> Any:
    options = {'train': False, 'label': label} | options
    return self.networks.generator.apply(*g, z, **options)

  def _logits(self, d: Any, x: Any, label: Any, **options: Any) -> Any:
    """Of D, its heads, and its statistics."""
    options = {'train': False, 'label': label} | options
    output, stats = self.networks.discriminator.apply(*d, x, **options)
    return (*(output if isinstance(output, tuple) else (output, {})), stats)

  def forward(self, state: Any, z: Any, x: Any, label: Any) -> Any:
    """Samples and logits outside of training."""
    g, d = state
    return self._samples(g, z, label)[0], self._logits(d, x, label)[0]

  def trained(self, state: Any, z: Any, x: Any) -> Any:
    """What training returns, in shapes."""
    (g, d), key = state, jax.random.key(0)
    samples, g_stats = self._samples(g, z, self.label, train=True, key=key)
    key = jax.random.key(1)
    return samples, g_stats, self._logits(d, x, self.label, train=True, key=key)

  def _outcome(
    self, state: Any, z: Any, x: Any, label: Any, key: Key[Array, '']
  ) -> _Outcome:
    """All that is looked at, as one program: compilation is what costs."""
    g, d = state

    def value(params: Any) -> Any:
      samples, _ = self._samples((params[0], g[1]), z, label)
      logits, heads, _ = self._logits((params[1], d[1]), samples, label)
      outputs = jax.tree.leaves((logits, heads))
      return sum(jnp.square(y - 0.3).sum() for y in outputs), samples

    slope, samples = jax.grad(value, has_aux=True)((g[0], d[0]))
    key_g, key_d = jax.random.split(key)
    _, g_stats = self._samples(g, z, label, train=True, key=key_g)
    *_, d_stats = self._logits(d, x, label, train=True, key=key_d)
    logits = self._logits(d, x, label)[0]
    return _Outcome(samples, logits, slope, (g_stats, d_stats))

  def run(self, state: Any, z: Any, x: Any, label: Any) -> _Outcome:
    """What comes of given states and inputs, of the same key."""
    key = jax.random.key(1)
    outcome: _Outcome = jax.device_get(self.compiled(state, z, x, label, key))
    return outcome

  def _check_finite(self, outcome: _Outcome) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(outcome):
      if _is_float(leaf):
        where = jax.tree_util.keystr(path)
        self.require(np.isfinite(leaf).all(), f'is not finite: {where}')

  def _check_slope(self, outcome: _Outcome) -> None:
    for player, slope in zip(_PLAYERS, outcome.slope, strict=True):
      for path, leaf in jax.tree_util.tree_leaves_with_path(slope):
        where = jax.tree_util.keystr(path)
        self.require(
          leaf.any(), f'{where} of its {player} has no effect on any output'
        )

  def _check_moved(self, outcome: _Outcome) -> None:
    for player, (_, stats), moved in zip(
      _PLAYERS, self.state, outcome.moved, strict=True
    ):
      pairs = zip(jax.tree.leaves(stats), jax.tree.leaves(moved), strict=True)
      changed = [(a != b).any() for a, b in pairs]
      self.require(
        any(changed) or not changed,
        f'its {player} has statistics, and training moves none of them',
      )

  def _check_still(self) -> None:
    for player, *args in self._nets():
      net = args[0]
      jaxpr, count = _jaxpr(*args).jaxpr, len(jax.tree.leaves(_abstract(net)))
      stats = len(jax.tree.leaves(_abstract(net)[1]))
      before = jaxpr.invars[count - stats : count]
      self.require(
        jaxpr.outvars[len(jaxpr.outvars) - stats :] == before,
        f'its {player} moves its statistics outside of training',
      )

  def _nets(self) -> list[tuple[str, Net, tuple[int, ...], bool]]:
    g, d, labelled = *self.networks[:2], bool(self.networks.classes)
    return [
      ('generator', g, self.z.shape[1:], labelled),
      ('discriminator', d, self.x.shape[1:], labelled),
    ]

  def _check_order(self, outcome: _Outcome) -> None:
    """Samples elsewhere in the batch, beside others, come out as before."""
    rows = np.array([5, 4, 3, 0, 0, 0])
    inputs = [
      None if x is None else x[rows] for x in (self.z, self.x, self.label)
    ]
    turned = self.run(self.state, *inputs)
    for a, b in zip(outcome[:2], turned[:2], strict=True):
      self.require(
        np.allclose(a[rows[:3]], b[:3], rtol=1e-4, atol=1e-5),
        'outside of training, what it returns for a sample depends on the'
        ' others of the batch, or on their order',
      )

  def check_far_inputs(self, state: Any) -> None:
    """Finite outputs at far inputs, and images in [-1, 1]."""
    images = len(self.networks.sample_shape) == 3
    far = np.sign(self.x) * (1.0 if images else 1e4)
    compiled = self.compiled._cache_size()
    run: Any = self.run if compiled else jax.jit(self.forward)
    samples, logits, *_ = run(state, 1e4 * self.z, far, self.label)
    self.require(
      np.isfinite(samples).all() and np.isfinite(logits).all(),
      'is not finite at noise or samples of 1e4',
    )
    self.require(
      not images or np.abs(samples).max() <= 1,
      'makes images outside of [-1, 1]',
    )

  def _check_compiled_once(self, outcome: _Outcome) -> None:
    state = [
      (params, moved)
      for (params, _), moved in zip(self.state, outcome.moved, strict=True)
    ]
    self.run(state, *self.inputs)
    self.require(
      self.compiled._cache_size() == 1,
      'is compiled anew for the statistics that it returns: their types are'
      ' others than those that it starts with',
    )

  def _check_purity(self) -> None:
    for player, *args in self._nets():
      again = _jaxpr.__wrapped__(*args)
      self.require(
        _masked(again) == _masked(_jaxpr(*args)),
        f'its {player} is another function when it is traced again; let it'
        ' depend on its arguments alone',
      )

  def _check_second_slopes(self) -> None:
    """A slope penalty can be differentiated; nothing is computed."""

    def penalty(state: Any, x: Any, call: Callable[..., Any]) -> Any:
      def total(x: Any) -> Any:
        return call(state, x, self.label)[0].sum()

      return jnp.square(jax.grad(total)(x)).sum()

    calls: list[Any] = [self._samples, self._logits]
    states = map(_abstract, self.networks[:2])
    for state, x, call in zip(states, (self.z, self.x), calls, strict=True):
      by_params = jax.grad(
        functools.partial(penalty, call=call), allow_int=True
      )
      jax.eval_shape(by_params, state, x)

  def _check_members(self) -> None:
    """`vmap` over parameters is a loop over them."""
    states = [
      jax.tree.map(
        lambda x, s=s: np.float32(s) * x if _is_float(x) else x, self.state
      )
      for s in (1.0, 0.9)
    ]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *states)
    mapped = jax.jit(jax.vmap(self._outcome, (0, None, None, None, None)))
    together = jax.device_get(mapped(stacked, *self.inputs, jax.random.key(1)))
    for i, state in enumerate(states):
      for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(self.run(state, *self.inputs)),
        jax.tree.leaves(together),
        strict=True,
      ):
        size = float(np.abs(a).max())
        self.require(
          np.allclose(b[i], a, rtol=1e-3, atol=1e-4 * size),
          f'is not the same under `vmap`: {jax.tree_util.keystr(path)}',
        )

  def check_labels(self) -> None:
    """Labels change both outputs, each class by parameters of its own."""
    forward = jax.jit(self.forward)

    def outputs(label: int, state: Any) -> Any:
      labels = np.full(_N, label, np.int32)
      return forward(state, self.z, self.x, labels)

    def moved(leaf: Any) -> Any:
      leaf = np.array(leaf)
      leaf[1:2] += 0.5 * (leaf.shape[:1] == (_CLASSES,))
      return leaf

    state = self.drawn_state()
    other = [(jax.tree.map(moved, params), stats) for params, stats in state]
    for player, one, three, one_moved, three_moved in zip(
      _PLAYERS,
      outputs(1, state),
      outputs(3, state),
      outputs(1, other),
      outputs(3, other),
      strict=True,
    ):
      self.require(
        not np.allclose(one, three, rtol=1e-3),
        f'its {player} returns the same for two classes; let it depend on'
        ' `label`, or declare `labels=False`',
      )
      self.require(
        not np.allclose(one, one_moved, rtol=1e-3)
        and np.allclose(three, three_moved, rtol=1e-5),
        f'its {player} has no parameters of each class alone, by their first'
        ' axis',
      )


def _disturbed(params: Any) -> Any:
  """Plus noise that neither fades nor grows from layer to layer."""
  rng = np.random.default_rng(1)

  def disturbed(leaf: Any) -> Any:
    inputs = math.prod(leaf.shape[:-1])
    std = 1 / math.sqrt(inputs) if leaf.ndim > 1 else 0.1
    return leaf + np.float32(std * rng.normal(size=leaf.shape))

  return jax.tree.map(disturbed, params)


def _is_float(x: Any) -> bool:
  return bool(np.issubdtype(x.dtype, np.floating))


@functools.lru_cache(maxsize=16)
def _abstract(net: Net) -> Any:
  return jax.eval_shape(net.init, jax.random.key(0))


def _sizes(net: Net) -> dict[str, tuple[int, ...]]:
  leaves = jax.tree_util.tree_leaves_with_path(_abstract(net)[0])
  return {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}


@functools.lru_cache(maxsize=16)
def _jaxpr(net: Net, shape: tuple[int, ...], labelled: bool = False) -> Any:
  """A network as it is traced outside of training."""

  def apply(state: Any, x: Any) -> Any:
    label = jnp.zeros(_N, jnp.int32) if labelled else None
    output, stats = net.apply(*state, x, train=False, label=label)
    return *jax.tree.leaves(output), stats

  x = jax.ShapeDtypeStruct((_N, *shape), jnp.float32)
  return jax.make_jaxpr(apply)(_abstract(net), x)


def _masked(jaxpr: Any) -> str:
  return re.sub(r'0x[0-9a-f]+', '', str(jaxpr))
