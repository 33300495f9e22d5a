"""Components: the parts of a game, as frozen dataclasses that are pytrees.

Objectives, regularizers, schedules, optimizers, augmentations, games and
trainers all derive from `Component`. A float field of one is a hyper-parameter:
an argument of the compiled step, which can be swept, is recorded with a run and
has one name, its path (`objective.temperature`, `regularizers.r1.weight`). A
float field that is None is not there at all. Everything else that a component
holds is `static`, compiled in, or a component itself.
"""

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, Union, cast

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.runtime.errors import ArgumentError

T = TypeVar('T')
Tree = TypeVar('Tree')


def static(default: Any = dataclasses.MISSING, **how: Any) -> Any:
  """A field that is compiled in: anything hashable that is no float.

  >>> class Often(Component):
  ...   times: int = static(1)
  >>> Often(times=3).times, jax.tree.leaves(Often(times=3))
  (3, [])
  """
  if default is not dataclasses.MISSING:
    how['default'] = default
  return flax.struct.field(pytree_node=False, **how)


def component_field(default: Any = dataclasses.MISSING) -> Any:
  """A field that holds components by name, or one of any class."""
  how = {} if default is dataclasses.MISSING else {'default': default}
  return flax.struct.field(
    pytree_node=True, metadata={'components': True}, **how
  )


def snake_case(name: str) -> str:
  """A class's name as flags and paths write it.

  >>> snake_case('SoftHinge'), snake_case('AlternatingGFirst'), snake_case('R1')
  ('soft_hinge', 'alternating_g_first', 'r1')
  """
  words = r'(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])'
  return re.sub(words, '_', name).lower()


if TYPE_CHECKING:

  class _Base:
    def replace(self, **changes: Any) -> Self: ...

else:
  _Base = flax.struct.PyTreeNode


@typing.dataclass_transform(frozen_default=True)
class Component(_Base):
  """A part of a game: a frozen dataclass whose float fields are traced.

  A subclass needs no decorator. `replace(field=value)` gives a changed copy.

  Raises:
    TypeError: at the definition of a subclass with a field that is neither a
      float nor a component and is not marked `static`.

  >>> class SoftMargin(Component):
  ...   width: float = 1.0
  >>> SoftMargin(width=2.0).name
  'soft_margin'
  """

  # Leaves are whatever a tree map puts there (tracers, shapes, shardings).
  __no_type_check__: ClassVar[bool] = True

  if not TYPE_CHECKING:

    def __new__(cls, *args: Any, **fields: Any) -> Any:
      """Names the fields that there are, where one is misspelt."""
      names = [field.name for field in dataclasses.fields(cls)]
      for name in fields:
        if name not in names:
          close = difflib.get_close_matches(name, names, n=1)
          use = (
            f'use `{close[0]}`'
            if close
            else f'it has {", ".join(names) or "none"}'
          )
          raise TypeError(f'{cls.__name__} has no field `{name}`; {use}')
      return super().__new__(cls)

  def __init_subclass__(cls, **kwargs: Any) -> None:
    """Makes the subclass a dataclass and checks its fields."""
    super().__init_subclass__(**kwargs)
    hints, kind = _hints(cls), cast(Any, cls)
    for field in dataclasses.fields(kind):
      if not field.metadata.get('pytree_node', True):
        continue
      if field.metadata.get('components'):
        continue
      if not _is_traced(hints.get(field.name, field.type)):
        raise TypeError(
          f'{cls.__name__}.{field.name}: {field.type} is neither a float (a'
          ' hyper-parameter) nor a component; write'
          f' `{field.name}: ... = gj.static(default)`, which is compiled in'
        )

  @property
  def name(self) -> str:
    """What it is called in paths, logs and messages."""
    return snake_case(type(self).__name__)

  def check(self) -> None:
    """Refuses values that are of no use; called when a user builds with it.

    Not in `__post_init__`, which also runs while leaves are tracers.

    Raises:
      ArgumentError: naming the field, its value and the remedy.
    """


def check_part(path: str, part: Component) -> None:
  """Checks a component; an error about one of its fields names the whole path.

  Raises:
    ArgumentError: as the component's own check does.
  """
  try:
    part.check()
  except ArgumentError as error:
    if not hasattr(part, error.argument.partition('.')[0]):
      raise
    raise ArgumentError(
      f'{path}.{error.argument}', error.value, error.remedy
    ) from error


def call_of(part: Component) -> str:
  """A component as a message writes it: with static fields that are not usual.

  >>> class Often(Component):
  ...   times: int = static(1)
  >>> call_of(Often()), call_of(Often(times=3))
  ('often', 'often(times=3)')
  """
  unusual = [
    f'{field.name}={getattr(part, field.name)}'
    for field in dataclasses.fields(cast(Any, part))
    if not field.metadata.get('pytree_node', True)
    and getattr(part, field.name) != field.default
  ]
  return part.name + (f'({", ".join(unusual)})' if unusual else '')


def _hints(cls: type) -> dict[str, Any]:
  try:
    return typing.get_type_hints(cls)
  except NameError:  # a name of a function's inside: looked at as it is written
    return {}


def _is_traced(kind: Any) -> bool:
  """Whether a field of this type holds leaves or components."""
  if isinstance(kind, str):
    return kind.replace(' ', '') in ('float', 'float|None', 'Optional[float]')
  if typing.get_origin(kind) in (Union, types.UnionType):
    return all(
      _is_traced(k) for k in typing.get_args(kind) if k is not type(None)
    )
  return kind is float or (
    isinstance(kind, type) and issubclass(kind, Component)
  )


class Named(dict[str, T]):
  """Components by name, in their order, as a pytree (a dict's is sorted)."""


def _flatten(
  named: Named[Any],
) -> tuple[list[tuple[Any, Any]], tuple[str, ...]]:
  keys = [jax.tree_util.DictKey(name) for name in named]
  return list(zip(keys, named.values(), strict=True)), tuple(named)


jax.tree_util.register_pytree_with_keys(
  Named, _flatten, lambda names, items: Named(zip(names, items, strict=True))
)


def by_name(argument: str, items: Any, base: type[T]) -> Named[T]:
  """Components in their order, under their names; classes at their defaults.

  Args:
    argument: what they are handed in as, for messages.
    items: components or their classes; a mapping keeps its names.
    base: what each must be an instance of.

  Raises:
    ArgumentError: for anything else, or for two of one name.
  """
  if isinstance(items, Mapping):
    pairs = [(k, as_component(argument, x, base)) for k, x in items.items()]
  else:
    if isinstance(items, (str, base)) or not hasattr(items, '__iter__'):
      raise ArgumentError(argument, items, 'give a list of them')
    whole = [as_component(argument, x, base) for x in items]
    pairs = [(x.name, x) for x in whole]  # type: ignore[attr-defined]
  named: Named[T] = Named()
  for name, item in pairs:
    if name in named:
      raise ArgumentError(
        argument, name, 'is there twice and would count twice; leave one out'
      )
    named[name] = item
  return named


def as_component(argument: str, item: Any, base: type[T]) -> T:
  """A component that was handed in as itself or as its class.

  Raises:
    ArgumentError: for anything else.
  """
  if isinstance(item, type) and issubclass(item, base):
    try:
      item = item()
    except TypeError as error:
      raise ArgumentError(
        argument, item.__name__, f'cannot be made without arguments ({error})'
      ) from error
  if isinstance(item, base):
    return item
  kind = snake_case(base.__name__).replace('_', ' ')
  if isinstance(item, str):
    raise ArgumentError(
      argument,
      item,
      f'is a name; give the {kind} itself, or let `make_trainer` find names',
    )
  raise ArgumentError(
    argument,
    type(item).__name__,
    f'is no {kind}; derive its class from `{base.__name__}`',
  )


def has_values(tree: Any, *, rebuilt: bool) -> bool:
  """Whether a tree of components holds numbers that can be checked.

  JAX rebuilds components with tracers, shapes, shardings or axes (whole numbers
  alone) in the place of their numbers.

  Args:
    tree: of components.
    rebuilt: whether it may have been put together by JAX.
  """
  numbers = jax.tree.leaves(tree)
  if rebuilt and numbers and all(type(x) in (int, bool) for x in numbers):
    return False
  return all(isinstance(x, (int, float, np.floating)) for x in numbers)


# Hyper-parameters: the float leaves of a tree of components, by path.


# Fields that a path leaves out: there is one game, and an optax optimizer's own
# numbers are its.
_UNSAID = ('game', 'injected')


def _path(keys: Any) -> str:
  words = [str(getattr(k, 'name', getattr(k, 'key', k))) for k in keys]
  return '.'.join(word for word in words if word not in _UNSAID)


def hyperparameters(tree: Any) -> dict[str, Any]:
  """The float fields of a tree of components, by path.

  >>> class Margin(Component):
  ...   width: float = 1.0
  >>> hyperparameters({'objective': Margin()})
  {'objective.width': 1.0}
  """
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {_path(keys): x for keys, x in leaves}


def with_hyperparameters(tree: Tree, values: Mapping[str, Any]) -> Tree:
  """A tree of components with some float fields in the place of its own.

  Raises:
    ArgumentError: for a path that it does not have.
  """
  paths = hyperparameters(tree)
  for path, value in values.items():
    if path not in paths:
      raise ArgumentError(
        path, value, f'no such hyper-parameter; there are {", ".join(paths)}'
      )

  def pick(keys: Any, x: Any) -> Any:
    return values.get(_path(keys), x)

  changed: Tree = jax.tree_util.tree_map_with_path(pick, tree)
  return changed


def as_scalars(values: Mapping[str, Any]) -> dict[str, jax.Array]:
  """Hyper-parameters as the compiled step takes them: float32 scalars."""
  return {path: jnp.float32(x) for path, x in values.items()}
