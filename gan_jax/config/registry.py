"""Names of registries and plug-ins, read without importing what they name.

A registry is a dict literal at the top level of a module (`OBJECTIVES =
{'minimax': minimax, ...}`). The flags need its keys long before JAX is wanted,
so that `--help` and a misspelt value answer at once: until the module is
imported they are read off its source. An installed package adds names by entry
points of the group `gan_jax.plugins`, `objectives.soft_hinge =
mypkg.losses:SoftHinge`; and `module:attribute` names any object.
"""

import ast
import functools
import importlib
import importlib.util
import pathlib
import re
import sys
from typing import Any

PLUGINS = 'gan_jax.plugins'
_OBJECT = re.compile(r'[A-Za-z_][\w.]*:[A-Za-z_][\w.]*')


def _source(module: str) -> str:
  """The text of a module; to find one, Python would import its package."""
  package, *names = module.split('.')
  spec = importlib.util.find_spec(package)
  for folder in spec.submodule_search_locations or () if spec else ():
    path = pathlib.Path(folder, *names)
    for file in (path.with_suffix('.py'), path / '__init__.py'):
      if file.is_file():
        return file.read_text(encoding='utf-8')
  raise LookupError(f'no module {module}')


@functools.cache
def _keys(module: str, registry: str) -> tuple[str, ...]:
  """Keys of a dict literal, read off the source of its module."""
  for node in ast.parse(_source(module)).body:
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
      targets = node.targets
    elif isinstance(node, ast.AnnAssign):
      targets = [node.target]
    named = any(isinstance(t, ast.Name) and t.id == registry for t in targets)
    if named and isinstance(node.value, ast.Dict):  # type: ignore[attr-defined]
      return tuple(ast.literal_eval(k) for k in node.value.keys if k)  # type: ignore[attr-defined]
  raise LookupError(f'{module} has no dict literal {registry}')


@functools.cache
def _plugins() -> dict[str, Any]:
  """Entry points of installed packages, by `registry.name`."""
  import importlib.metadata

  return {e.name: e for e in importlib.metadata.entry_points(group=PLUGINS)}


def names(module: str, registry: str) -> tuple[str, ...]:
  """Names that the registry knows, those of plug-ins after its own.

  Entries that were added at run time count once the module is imported.

  Raises:
    LookupError: if the module has no such dict literal with string keys.
  """
  entries = getattr(sys.modules.get(module), registry, None)
  own = _keys(module, registry) if entries is None else tuple(entries)
  prefix = f'{registry.lower()}.'
  added = (n.removeprefix(prefix) for n in _plugins() if n.startswith(prefix))
  return (*own, *(name for name in added if name not in own))


def is_reference(name: str) -> bool:
  """Whether a name is of the form `module:attribute`.

  >>> is_reference('mypkg.losses:SoftHinge')
  True
  """
  return _OBJECT.fullmatch(name) is not None


def load(module: str, registry: str, name: str) -> Any:
  """The object of a name: an entry, a plug-in's, or `module:attribute`.

  Raises:
    LookupError: if there is none, or its module cannot be imported.
  """
  entries = getattr(importlib.import_module(module), registry)
  if name in entries:
    return entries[name]
  plugin = _plugins().get(f'{registry.lower()}.{name}')
  try:
    if plugin is not None:
      return plugin.load()
    if is_reference(name):
      source, _, path = name.partition(':')
      return functools.reduce(
        getattr, path.split('.'), importlib.import_module(source)
      )
  except (ImportError, AttributeError) as error:
    raise LookupError(f'{name}: cannot be imported ({error})') from error
  raise LookupError(f'{name}: not in {module}.{registry}')
