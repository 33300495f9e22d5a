"""Checks of networks by their shapes, before anything is computed."""

import collections
import functools
import inspect
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gan_jax.networks.base import Net, Networks, packed_shape
from gan_jax.runtime.errors import ArgumentError

_N = 8  # samples: a power of 2, for statistics over groups of the batch


def name_of(thing: Any) -> str:
  """How a message calls a module, a class, a function, or a tuple's last."""
  if isinstance(thing, tuple) and thing:
    return name_of(thing[-1])
  name = getattr(thing, '__qualname__', '') or getattr(thing, '__name__', '')
  return (name or type(thing).__qualname__).rsplit('.', 1)[-1]


def check_sizes(
  latent_dim: int, sample_shape: tuple[int, ...], classes: int
) -> None:
  """Checks the numbers that go with a pair of networks.

  Raises:
    ArgumentError: for one that is no size.
  """
  if not _is_size(latent_dim):
    raise ArgumentError(
      'latent_dim', latent_dim, 'give the dimensions of the noise, 1 or more'
    )
  shape = sample_shape
  if not isinstance(shape, tuple | list) or not all(
    map(_is_size, shape or [0])
  ):
    raise ArgumentError(
      'sample_shape',
      shape,
      'give the sizes of one sample without the batch, a tuple such as'
      ' `(32, 32, 3)`, or `(2,)` for points',
    )
  if classes and not _is_size(classes):
    raise ArgumentError(
      'classes', classes, 'give the number of classes, 0 for none'
    )


def _is_size(value: Any) -> bool:
  try:
    return operator.index(value) > 0 and not isinstance(value, bool)
  except TypeError:
    return False


_Pair = tuple[Net, Net, int]
_built: collections.deque[_Pair] = collections.deque(maxlen=64)


def trust(networks: Networks, packing: int) -> Networks:
  """Notes that networks are this library's, which its own tests check.

  Each of them is traced four times to be checked: a tenth of a run's start.
  """
  _built.append((networks.generator, networks.discriminator, packing))
  return networks


def check_networks(networks: Networks, *, packing: int = 1) -> None:
  """Checks what networks return, by `jax.eval_shape`: nothing is computed.

  Args:
    networks: to be checked.
    packing: samples that D sees at once, joined along the last axis.

  Raises:
    ArgumentError: naming the network or the size, and what is wrong with it.
  """
  if not isinstance(networks, Networks):
    raise ArgumentError(
      'networks', name_of(networks), f'is no `Networks`: {_ADAPTERS}'
    )
  check_sizes(networks.latent_dim, networks.sample_shape, networks.classes)
  if (networks.generator, networks.discriminator, packing) in _built:
    return
  networks = networks._replace(sample_shape=tuple(networks.sample_shape))
  try:
    hash(networks)
  except TypeError:  # functions that hold arrays, say
    _check_traces.__wrapped__(networks, packing)
  else:
    _check_traces(networks, packing)


@functools.lru_cache(maxsize=32)  # games of the same networks are many
def _check_traces(networks: Networks, packing: int) -> None:
  latent_dim, shape = networks.latent_dim, networks.sample_shape
  _check_latent(networks.latent, latent_dim)
  g, d = (
    _Trace(networks.generator, 'generator', (latent_dim,), networks.classes),
    _Trace(
      networks.discriminator,
      'discriminator',
      packed_shape(shape, packing),
      networks.classes,
    ),
  )
  for train in (True, False):
    _check_samples(g, g.output(train), shape)
    _check_logits(d, d.output(train))


_ADAPTERS = (
  'make one by `from_linen`, `from_nnx`, `from_equinox`, `from_haiku` or'
  ' `from_functions` of `gan_jax.networks`'
)


def _check_latent(latent: Callable[..., Any], latent_dim: int) -> None:
  if not callable(latent):
    raise ArgumentError(
      'latent',
      latent,
      'give a function `(key, shape) -> array`, such as `jax.random.normal`',
    )
  key = jax.eval_shape(jax.random.key, 0)
  z = jax.eval_shape(lambda key: latent(key, (latent_dim,)), key)
  if not _is_float(z) or z.shape != (latent_dim,):
    raise ArgumentError(
      'latent',
      name_of(latent),
      f'returns {_shown(z)} where the noise of one sample was asked for,'
      f' float32 ({latent_dim},)',
    )


class _Trace:
  """A network as it was traced: shapes of its parameters and its outputs."""

  def __init__(
    self, net: Net, argument: str, shape: tuple[int, ...], classes: int
  ) -> None:
    self._net, self._argument = net, argument
    self._x = jax.ShapeDtypeStruct((_N, *shape), jnp.float32)
    self._label = jax.ShapeDtypeStruct((_N,), jnp.int32) if classes else None
    if not isinstance(net, Net):
      raise self.error(f'is no `Net`: {_ADAPTERS}')
    try:
      inspect.signature(net.init).bind(None)
      inspect.signature(net.apply).bind(
        None, None, None, train=True, key=None, label=None
      )
    except TypeError as cause:
      raise self.error(
        f'its functions are to be `init(key)` and `apply(params, stats, x, *,'
        f' train, key, label)`, but: {cause}; `from_functions` takes others'
      ) from cause
    made = jax.eval_shape(net.init, jax.random.key(0))
    if not isinstance(made, tuple) or len(made) != 2:
      raise self.error('its `init` is to return `(params, stats)`')
    self._params, self._stats = made
    for path, leaf in jax.tree_util.tree_leaves_with_path(self._params):
      if not _is_float(leaf):
        where = jax.tree_util.keystr(path, simple=True, separator='/')
        raise self.error(
          f'its parameter `{where}` is {leaf.dtype}: keep parameters in'
          ' float32; the computation may be in another type'
        )

  def error(self, remedy: str) -> ArgumentError:
    """That names this network."""
    return ArgumentError(self._argument, name_of(self._net), remedy)

  def output(self, train: bool) -> Any:
    """Shapes of what the network returns for a batch."""
    apply = functools.partial(self._net.apply, train=train)
    try:
      returned = jax.eval_shape(
        lambda *args: apply(*args[:3], key=args[3], label=args[4]),
        *(self._params, self._stats, self._x, jax.random.key(0), self._label),
      )
    except Exception as cause:
      cause.add_note(
        f'(when `{self._argument}={name_of(self._net)}` was called on'
        f' {_shown(self._x)}, with train={train})'
      )
      raise
    if not isinstance(returned, tuple) or len(returned) != 2:
      raise self.error('its `apply` is to return `(output, stats)`')
    output, stats = returned
    if _types(stats) != _types(self._stats):
      raise self.error(
        f'its `apply` returns statistics of other types than its `init`:'
        f' {_types(stats)}, not {_types(self._stats)}'
      )
    return output


def _check_samples(g: _Trace, x: Any, shape: tuple[int, ...]) -> None:
  if not _is_array(x) or x.shape != (_N, *shape):
    wanted = ', '.join(map(str, shape))
    raise g.error(
      f'its samples are {_shown(x)}, not (n, {wanted}): reshape them, or set'
      ' `sample_shape` to what they are'
    )
  if not _is_float(x):
    raise g.error(
      f'its samples are {x.dtype}: return float32, images in [-1, 1]'
    )


def _check_logits(d: _Trace, output: Any) -> None:
  heads: Any = {}
  logits = output
  if isinstance(output, tuple) and len(output) == 2:
    logits, heads = output
  if not _is_array(logits) or not isinstance(heads, dict):
    raise d.error(
      f'returns {_shown(output)}: return logits (n,), or a pair of logits and'
      ' a dict of arrays, its further heads'
    )
  if logits.shape == (_N, 1):
    raise d.error('its logits are (n, 1): squeeze them to (n,), `logits[:, 0]`')
  if logits.shape != (_N,):
    raise d.error(f'its logits are {_shown(logits)}: return one a sample, (n,)')
  if not _is_float(logits):
    raise d.error(
      f'its logits are {logits.dtype}: return float32, any real number, as they'
      ' are before a sigmoid or a comparison'
    )
  for name, head in heads.items():
    if not _is_array(head) or head.shape[:1] != (_N,):
      raise d.error(
        f'its head `{name}` is {_shown(head)}: return one row a sample,'
        ' (n, ...)'
      )


def _is_array(x: Any) -> bool:
  return hasattr(x, 'shape') and hasattr(x, 'dtype')


def _is_float(x: Any) -> bool:
  """Whether it is float32, or float64 (under `jax_enable_x64`)."""
  return _is_array(x) and x.dtype in (jnp.float32, jnp.float64)


def _types(tree: Any) -> Any:
  return jax.tree.map(lambda x: f'{x.dtype}{x.shape}', tree)


def _shown(x: Any) -> str:
  """Type and shape, `n` for the batch."""
  if not _is_array(x):
    return f'a {type(x).__name__}'
  sizes = ['n' if i == 0 and s == _N else str(s) for i, s in enumerate(x.shape)]
  return f'{x.dtype} ({", ".join(sizes)}{"," * (len(sizes) == 1)})'
