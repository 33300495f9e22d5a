"""Names of the registries, read without importing what they name.

A registry is a plain dict literal (`OBJECTIVES = {'minimax': minimax, ...}`).
The flags need its keys long before JAX is wanted, so that `--help` and a
misspelt value answer at once; the keys are therefore read off the source.
"""

import ast
import functools
import importlib.util
import pathlib


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
def names(module: str, registry: str) -> tuple[str, ...]:
  """Keys of the dict literal `registry` at the top level of `module`.

  Raises:
    LookupError: if the module has no such dict literal with string keys.
  """
  tree = ast.parse(_source(module))
  for node in tree.body:
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
      targets = node.targets
    elif isinstance(node, ast.AnnAssign):
      targets = [node.target]
    named = any(isinstance(t, ast.Name) and t.id == registry for t in targets)
    if named and isinstance(node.value, ast.Dict):  # type: ignore[attr-defined]
      return tuple(ast.literal_eval(k) for k in node.value.keys if k)  # type: ignore[attr-defined]
  raise LookupError(f'{module} has no dict literal {registry}')
