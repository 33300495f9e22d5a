"""Networks of Flax, Equinox, Haiku and plain functions, as `Networks`.

A module receives what the signature of its call names: `train`, `training` or
`is_training`; their opposites `deterministic` and `inference`; `key`, for what
it draws; `label`, classes (n,) int32 or None. `call=` covers every other
signature.

>>> class G(nn.Module):
...   @nn.compact
...   def __call__(self, z, train):
...     z = nn.BatchNorm(use_running_average=not train)(nn.Dense(8)(z))
...     return nn.Dense(2)(nn.relu(z))
>>> class D(nn.Module):
...   @nn.compact
...   def __call__(self, x):
...     return nn.Dense(1)(nn.relu(nn.Dense(8)(x)))[:, 0]
>>> networks = from_linen(G(), D(), latent_dim=4, sample_shape=(2,))
>>> params, stats = networks.generator.init(jax.random.key(0))
>>> sorted(params), sorted(stats)
(['BatchNorm_0', 'Dense_0', 'Dense_1'], ['batch_stats'])
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util
from jaxtyping import Array, Key

from gan_jax.networks.base import (
  Label,
  Latent,
  Net,
  Networks,
  Params,
  Stats,
  packed_shape,
  wide,
)
from gan_jax.networks.checks import check_sizes, name_of
from gan_jax.runtime.errors import ArgumentError

if TYPE_CHECKING:
  import equinox as eqx
  import haiku as hk
  from flax import nnx

_TRAINED = ('train', 'training', 'is_training')
_EVALUATED = ('deterministic', 'inference')
_WORDS = (*_TRAINED, *_EVALUATED, 'key', 'label')

# A network that is called: what it is called with, beside x, is in a dict.
Module = Any
Call = Callable[..., Any]
MaybeKey = Key[Array, ''] | None
# Of a module and the shape of one input, the name of the argument that it came
# as: its functions, and the words of `_WORDS` that its call names.
_Make = Callable[[Module, tuple[int, ...], str], tuple[Net, Sequence[str]]]


def from_linen(
  g: nn.Module,
  d: nn.Module,
  *,
  latent_dim: int,
  sample_shape: tuple[int, ...],
  latent: Latent = jax.random.normal,
  classes: int = 0,
  call: Call | None = None,
  packing: int = 1,
) -> Networks:
  """Networks of two Flax linen modules.

  Every collection but `params` is part of the statistics. `make_rng` of any
  stream draws from the key of the update.

  Args:
    g: the generator, called on noise (n, latent_dim).
    d: the discriminator, called on samples (n, *sample_shape).
    latent_dim: dimensions of the noise.
    sample_shape: of one sample: (height, width, channels), or (dim,).
    latent: `(key, shape) -> array`, draws the noise of one sample.
    classes: of the integer labels that modules receive as `label`; 0 for none.
    call: `(module, x, *, train, key, label) -> output`, for both modules, where
      their signatures are others; it too receives only what it names.
    packing: samples that D sees at once, as in `Game(packing=...)`: D is
      initialised for as many, joined along the last axis.

  Raises:
    ArgumentError: for what is no linen module, or cannot be called.
  """
  make = functools.partial(_linen, classes=classes, call=call)
  return _networks(
    make, g, d, latent_dim, sample_shape, latent, classes, packing
  )


def from_nnx(
  g: Callable[['nnx.Rngs'], 'nnx.Module'],
  d: Callable[['nnx.Rngs'], 'nnx.Module'],
  *,
  latent_dim: int,
  sample_shape: tuple[int, ...],
  latent: Latent = jax.random.normal,
  classes: int = 0,
  call: Call | None = None,
) -> Networks:
  """Networks of two factories of Flax nnx modules.

  Modules are switched by `train()` and `eval()`. Every variable but `nnx.Param`
  is part of the statistics, without intermediates and the states of random
  streams: these start from the key of each update.

  Args:
    g: makes the generator: a class, or a function of `nnx.Rngs`. A module that
      is built holds the weights of one seed.
    d: makes the discriminator.
    latent_dim: see `from_linen`, as for the others.
    sample_shape: of one sample.
    latent: draws the noise of one sample.
    classes: of the labels.
    call: `(module, x, *, train, key, label) -> output`.

  Raises:
    ArgumentError: for what makes no nnx module, or one that cannot be called.
  """
  make = functools.partial(_nnx, call=call)
  return _networks(make, g, d, latent_dim, sample_shape, latent, classes)


def from_equinox(
  g: Callable[[Key[Array, '']], 'eqx.Module'],
  d: Callable[[Key[Array, '']], 'eqx.Module'],
  *,
  latent_dim: int,
  sample_shape: tuple[int, ...],
  latent: Latent = jax.random.normal,
  classes: int = 0,
  call: Call | None = None,
  batched: bool = False,
) -> Networks:
  """Networks of two factories of Equinox modules.

  Modules are switched by `eqx.nn.inference_mode`. One whose call names `state`
  returns it as well: `(output, state)`. Inexact arrays of a module are its
  parameters, other arrays and its state are the statistics.

  Args:
    g: makes the generator: a class, or a function of a key. A module that is
      built holds the weights of one seed.
    d: makes the discriminator.
    latent_dim: see `from_linen`, as for the others.
    sample_shape: of one sample.
    latent: draws the noise of one sample.
    classes: of the labels.
    call: `(module, x, *, train, key, label) -> output`, of one example.
    batched: whether modules are called on a batch. Otherwise they are called on
      one example each, its own key and label, under
      `jax.vmap(axis_name='batch')`.

  Raises:
    ArgumentError: for what makes no Equinox module, or one that cannot be
      called.
  """
  make = functools.partial(_equinox, call=call, batched=batched)
  return _networks(make, g, d, latent_dim, sample_shape, latent, classes)


def from_haiku(
  g: 'hk.TransformedWithState | hk.Transformed',
  d: 'hk.TransformedWithState | hk.Transformed',
  *,
  latent_dim: int,
  sample_shape: tuple[int, ...],
  latent: Latent = jax.random.normal,
  classes: int = 0,
  call: Call | None = None,
  packing: int = 1,
) -> Networks:
  """Networks of two functions transformed by Haiku.

  They are initialised with `is_training=True`, as Haiku's batch normalisation
  has to be. `hk.next_rng_key` draws from the key of the update.

  Args:
    g: the generator: `hk.transform_with_state(function)`.
    d: the discriminator, likewise.
    latent_dim: see `from_linen`, as for the others.
    sample_shape: of one sample.
    latent: draws the noise of one sample.
    classes: of the labels.
    call: `(function, x, *, train, key, label) -> output`.
    packing: samples that D sees at once, as in `Game(packing=...)`.

  Raises:
    ArgumentError: for what is not transformed, or cannot be called.
  """
  make = functools.partial(_haiku, classes=classes, call=call)
  return _networks(
    make, g, d, latent_dim, sample_shape, latent, classes, packing
  )


def from_functions(
  g: Net | tuple[Call, Call],
  d: Net | tuple[Call, Call],
  *,
  latent_dim: int,
  sample_shape: tuple[int, ...],
  latent: Latent = jax.random.normal,
  classes: int = 0,
  call: Call | None = None,
) -> Networks:
  """Networks of plain functions.

  Args:
    g: the generator: a pair `(init, apply)` with `init(key) -> params` and
      `apply(params, x) -> output`, which receives what else it names; or a
      `Net`, whose functions know statistics.
    d: the discriminator, likewise.
    latent_dim: see `from_linen`, as for the others.
    sample_shape: of one sample.
    latent: draws the noise of one sample.
    classes: of the labels.
    call: `(function, x, *, train, key, label) -> output`, of pairs.

  Raises:
    ArgumentError: for what is no such pair, or cannot be called.

  >>> def init(key):
  ...   return {'w': jax.random.normal(key, (2,))}
  >>> networks = from_functions(
  ...   (init, lambda params, z: z * params['w']),
  ...   (init, lambda params, x: x @ params['w']),
  ...   latent_dim=2, sample_shape=(2,),
  ... )
  """
  make = functools.partial(_functions, call=call)
  return _networks(make, g, d, latent_dim, sample_shape, latent, classes)


def _networks(
  make: _Make,
  g: Module,
  d: Module,
  latent_dim: int,
  sample_shape: tuple[int, ...],
  latent: Latent,
  classes: int,
  packing: int = 1,
) -> Networks:
  check_sizes(latent_dim, sample_shape, classes)
  sample_shape = tuple(sample_shape)
  generator, g_words = make(g, (latent_dim,), 'g')
  discriminator, d_words = make(d, packed_shape(sample_shape, packing), 'd')
  if classes and 'label' not in (*g_words, *d_words):
    raise ArgumentError(
      'classes',
      classes,
      f'neither `g={name_of(g)}` nor `d={name_of(d)}` takes a label: let their'
      ' calls name `label`, or leave `classes` out',
    )
  return Networks(
    generator, discriminator, latent_dim, sample_shape, latent, classes
  )


def _linen(
  module: Module,
  shape: tuple[int, ...],
  argument: str,
  *,
  classes: int,
  call: Call | None,
) -> tuple[Net, Sequence[str]]:
  if not isinstance(module, nn.Module):
    built = isinstance(module, type) and issubclass(module, nn.Module)
    raise ArgumentError(
      argument,
      name_of(module),
      f'is a class: give an instance, `{name_of(module)}(...)`'
      if built
      else 'is no Flax linen module: use an instance of one, or `from_nnx`,'
      ' `from_equinox`, `from_haiku` or `from_functions`',
    )
  names = _named(call or type(module).__call__, module, argument)

  def init(key: Key[Array, '']) -> tuple[Params, Stats]:
    x, label = _example(shape, classes)
    streams, own = _split(names, key)
    words = _words(names, False, own, label)
    rngs: dict[str, Any] = {'params': streams}
    variables = dict(module.init(rngs, x, method=call, **words))
    return variables.pop('params', {}), variables

  def apply(
    params: Params,
    stats: Stats,
    x: Array,
    train: bool,
    key: MaybeKey,
    label: Label,
  ) -> tuple[Any, Stats]:
    key, own = _split(names, key)
    # Flax falls back on `params` for every stream that is not there.
    rngs = None
    if key is not None:
      rngs = {'dropout': key, 'params': jax.random.fold_in(key, 1)}
    output = module.apply(
      {'params': params, **stats},
      x,
      rngs=rngs,
      method=call,
      mutable=list(stats) if train and stats else False,
      **_words(names, train, own, label),
    )
    return output if train and stats else (output, stats)

  return _net(init, apply, name_of(module)), names


def _nnx(
  factory: Module, shape: tuple[int, ...], argument: str, *, call: Call | None
) -> tuple[Net, Sequence[str]]:
  from flax import nnx

  del shape
  make = _maker(factory, 'rngs', nnx.Module, 'nnx.Module', argument)
  groups: Any = (nnx.Param, nnx.RngState, nnx.Intermediate, ...)

  def split(key: Key[Array, '']) -> tuple[Module, Any]:
    module = make(nnx.Rngs(key))
    graph, *states = nnx.split(module, *groups)
    return (type(module), graph), states

  (kind, graph), (params_like, streams_like, _, stats_like) = _abstract(split)
  function = call or kind.__call__
  names = _named(function, factory, argument)

  def init(key: Key[Array, '']) -> tuple[Params, Stats]:
    params, *_, stats = split(key)[1]
    return _to_dict(params), _to_dict(stats)

  def apply(
    params: Params,
    stats: Stats,
    x: Array,
    train: bool,
    key: MaybeKey,
    label: Label,
  ) -> tuple[Any, Stats]:
    key, own = _split(names, key)
    if train and key is None and jax.tree.leaves(streams_like):
      raise ArgumentError(
        'key', key, f'`{name_of(factory)}` draws in training: give it a key'
      )
    module = nnx.merge(
      graph,
      _from_dict(params_like, params),
      _restarted(streams_like, jax.random.key(0) if key is None else key),
      _from_dict(stats_like, stats),
    )
    module.train() if train else module.eval()
    output = function(module, x, **_words(names, train, own, label))
    return output, _to_dict(nnx.split(module, *groups)[-1])

  return _net(init, apply, name_of(factory)), names


def _restarted(streams: Any, key: Key[Array, '']) -> Any:
  """States of random streams, each from a key of its own, drawn from never."""
  leaves, tree = jax.tree.flatten(streams)
  fresh = [
    jax.random.split(jax.random.fold_in(key, i), like.shape)
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key)
    else jnp.zeros(like.shape, like.dtype)
    for i, like in enumerate(leaves)
  ]
  return jax.tree.unflatten(tree, fresh)


def _equinox(
  factory: Module,
  shape: tuple[int, ...],
  argument: str,
  *,
  call: Call | None,
  batched: bool,
) -> tuple[Net, Sequence[str]]:
  import equinox as eqx

  del shape
  make = _maker(factory, 'key', eqx.Module, 'equinox.Module', argument)

  def split(key: Key[Array, '']) -> tuple[Module, Any]:
    module, state = eqx.nn.make_with_state(make)(key)
    arrays, static = eqx.partition(module, eqx.is_array)
    params, rest = eqx.partition(arrays, eqx.is_inexact_array)
    return static, (params, {'constants': rest, 'state': state})

  static, (params_like, stats_like) = _abstract(split)
  function = call or type(static).__call__
  names = _named(function, factory, argument, (*_WORDS, 'state'))

  def init(key: Key[Array, '']) -> tuple[Params, Stats]:
    params, stats = split(key)[1]
    return _to_dict(params), _to_dict(stats)

  def apply(
    params: Params,
    stats: Stats,
    x: Array,
    train: bool,
    key: MaybeKey,
    label: Label,
  ) -> tuple[Any, Stats]:
    parts = _from_dict(stats_like, stats)
    module = eqx.combine(
      _from_dict(params_like, params), parts['constants'], static
    )
    module = eqx.nn.inference_mode(module, value=not train)

    def one(x: Array, key: MaybeKey, label: Any, state: Any) -> tuple[Any, Any]:
      words = _words(names, train, key, label, state)
      output = function(module, x, **words)
      return output if 'state' in names else (output, state)

    if not batched:
      key = None if key is None else jax.random.split(key, len(x))
      axes = 0, None if key is None else 0, None if label is None else 0, None
      one = jax.vmap(one, axes, (0, None), axis_name='batch')
    output, state = one(x, key, label, parts['state'])
    return output, _to_dict({**parts, 'state': state})

  return _net(init, apply, name_of(factory)), names


def _haiku(
  pair: Module,
  shape: tuple[int, ...],
  argument: str,
  *,
  classes: int,
  call: Call | None,
) -> tuple[Net, Sequence[str]]:
  import haiku as hk

  if isinstance(pair, hk.Transformed):
    pair = hk.with_empty_state(pair)
  if not isinstance(pair, hk.TransformedWithState):
    raise ArgumentError(
      argument,
      name_of(pair),
      f'is not transformed: give `hk.transform_with_state({name_of(pair)})`',
    )
  function = getattr(pair.apply, '_original_fn')  # noqa: B009
  names = _named(call or function, function, argument, skip=2 if call else 1)
  if call:
    pair = hk.transform_with_state(functools.partial(call, function))

  def init(key: Key[Array, '']) -> tuple[Params, Stats]:
    x, label = _example(shape, classes)
    streams, own = _split(names, key)
    return pair.init(streams, x, **_words(names, True, own, label))

  def apply(
    params: Params,
    stats: Stats,
    x: Array,
    train: bool,
    key: MaybeKey,
    label: Label,
  ) -> tuple[Any, Stats]:
    key, own = _split(names, key)
    words = _words(names, train, own, label)
    return pair.apply(params, stats, key, x, **words)

  return _net(init, apply, name_of(function)), names


def _functions(
  pair: Module, shape: tuple[int, ...], argument: str, *, call: Call | None
) -> tuple[Net, Sequence[str]]:
  del shape
  if isinstance(pair, Net):
    return _net(pair.init, _positional(pair), name_of(pair.apply)), _WORDS
  if not isinstance(pair, tuple) or [*map(callable, pair)] != [True, True]:
    raise ArgumentError(
      argument,
      name_of(pair),
      'is no pair of functions: give `(init, apply)` with `init(key) -> params`'
      ' and `apply(params, x) -> output`, or a `gan_jax.networks.Net`',
    )
  first, second = pair
  names = _named(call or second, second, argument)

  def apply(
    params: Params,
    stats: Stats,
    x: Array,
    train: bool,
    key: MaybeKey,
    label: Label,
  ) -> tuple[Any, Stats]:
    words = _words(names, train, key, label)
    if call:
      return call(functools.partial(second, params), x, **words), stats
    return second(params, x, **words), stats

  return _net(lambda key: (first(key), {}), apply, name_of(second)), names


def _positional(net: Net) -> Call:
  def apply(
    params: Params,
    stats: Stats,
    x: Array,
    train: bool,
    key: MaybeKey,
    label: Label,
  ) -> tuple[Any, Stats]:
    return net.apply(params, stats, x, train=train, key=key, label=label)

  return apply


def _net(init: Call, apply: Call, name: str) -> Net:
  """What a framework's functions have in common, once they are pure.

  Outputs are float32 at the least, statistics stay as they are outside of
  training, and no array is weakly typed, so that the first update is compiled
  for the same types as the second.
  """

  def init_all(key: Key[Array, '']) -> tuple[Params, Stats]:
    return jax.tree.map(_strong, init(key))

  def apply_all(
    params: Params,
    stats: Stats,
    x: Array,
    *,
    train: bool,
    key: Key[Array, ''] | None = None,
    label: Array | None = None,
  ) -> tuple[Any, Stats]:
    output, moved = apply(params, stats, x, train, key, label)
    moved = jax.tree.map(_strong, moved) if train else stats
    return jax.tree.map(wide, output), moved

  init_all.__qualname__ = apply_all.__qualname__ = name
  return Net(init_all, apply_all)


def _named(
  function: Call,
  module: Module,
  argument: str,
  words: Sequence[str] = _WORDS,
  skip: int = 2,
) -> tuple[str, ...]:
  """The words that a function names behind its first, positional parameters.

  Raises:
    ArgumentError: if it requires anything else, or takes no input.
  """
  parameters = _parameters(function)
  kinds = [p.kind for p in parameters]
  first = [p for p in parameters if p.kind <= p.POSITIONAL_OR_KEYWORD]
  if len(first) < skip and inspect.Parameter.VAR_POSITIONAL not in kinds:
    raise ArgumentError(
      argument,
      name_of(module),
      'its call takes no input: the first argument of G is the noise, that of D'
      ' the samples',
    )
  names = []
  for parameter in (p for p in parameters if p not in first[:skip]):
    if parameter.name in words and parameter.kind != parameter.POSITIONAL_ONLY:
      names.append(parameter.name)
    elif _required(parameter):
      *others, last = (f'`{word}`' for word in words)
      raise ArgumentError(
        argument,
        name_of(module),
        f'its call requires `{parameter.name}`, and is given only what it names'
        f' of {", ".join(others)} and {last}: give it a default, or write'
        ' `call=lambda module, x, *, train, key, label: module(x, ...)`',
      )
  return tuple(names)


def _parameters(function: Call) -> list[inspect.Parameter]:
  try:
    return [*inspect.signature(function).parameters.values()]
  except ValueError:  # a built-in function that does not say
    return [inspect.Parameter('args', inspect.Parameter.VAR_POSITIONAL)]


def _required(parameter: inspect.Parameter) -> bool:
  variadic = parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD
  return parameter.default is parameter.empty and parameter.kind not in variadic


def _words(
  names: Sequence[str],
  train: bool,
  key: MaybeKey,
  label: Any,
  state: Any = None,
) -> dict[str, Any]:
  values: dict[str, Any] = {}
  values |= dict.fromkeys(_TRAINED, train) | dict.fromkeys(
    _EVALUATED, not train
  )
  values |= {'key': key, 'label': label, 'state': state}
  return {name: values[name] for name in names}


def _split(names: Sequence[str], key: MaybeKey) -> tuple[MaybeKey, MaybeKey]:
  """Keys of the framework's own streams, and of the call where it names one."""
  if key is None or 'key' not in names:
    return key, None
  first, second = jax.random.split(key)
  return first, second


def _example(shape: tuple[int, ...], classes: int) -> tuple[Any, Any]:
  """A batch that parameters are initialised for, and its labels."""
  return jnp.zeros((2, *shape)), jnp.zeros(2, jnp.int32) if classes else None


def _maker(
  factory: Module, word: str, kind: type, kind_name: str, argument: str
) -> Call:
  """A factory as a function of one argument, which it takes as `word` or first.

  Raises:
    ArgumentError: for a module that is built, or what needs more arguments.
  """
  name = name_of(factory)
  if isinstance(factory, kind):
    raise ArgumentError(
      argument,
      name,
      'is built, and so holds the weights of one seed: give the class, or a'
      f' factory, `lambda {word}: {name}(..., {word}={word})`',
    )
  if not callable(factory):
    raise ArgumentError(
      argument, name, f'is no factory: give a class or a function of `{word}`'
    )
  parameters = _parameters(factory)
  if isinstance(factory, type):  # whose metaclass hides what it takes
    parameters = _parameters(getattr(factory, '__init__'))[1:]  # noqa: B009
  by_name = word in [p.name for p in parameters]
  others = [p for p in parameters if p.name != word][not by_name :]
  if needed := [p.name for p in others if _required(p)]:
    raise ArgumentError(
      argument,
      name,
      f'requires `{"`, `".join(needed)}` beside `{word}`: give a factory,'
      f' `lambda {word}: {name}(..., {word}={word})`',
    )

  def make(value: Any) -> Module:
    module = factory(**{word: value}) if by_name else factory(value)
    if not isinstance(module, kind):
      raise ArgumentError(
        argument,
        name,
        f'makes {type(module).__name__}, which is no `{kind_name}`',
      )
    return module

  return make


def _abstract(split: Callable[[Any], tuple[Any, Any]]) -> tuple[Any, Any]:
  """What does not depend on the key, and shapes in place of what does."""
  static: list[Any] = []

  def arrays(key: Key[Array, '']) -> Any:
    made, rest = split(key)
    static[:] = [made]
    return rest

  shapes = jax.eval_shape(arrays, jax.random.key(0))
  return static[0], shapes


def _path(path: Any) -> str:
  return jax.tree_util.keystr(path, simple=True, separator='/')


def _to_dict(tree: Any) -> dict[str, Any]:
  """Arrays of a tree of any classes in nested dicts, by their paths."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return traverse_util.unflatten_dict(
    {_path(path): leaf for path, leaf in leaves}, sep='/'
  )


def _from_dict(like: Any, nested: Params) -> Any:
  """The inverse, in a tree of the same classes and paths."""
  flat = traverse_util.flatten_dict(nested, sep='/')
  return jax.tree_util.tree_map_with_path(
    lambda path, _: flat[_path(path)], like
  )


def _strong(x: Any) -> Array:
  x = jnp.asarray(x)
  return jax.lax.convert_element_type(x, x.dtype) if x.weak_type else x
