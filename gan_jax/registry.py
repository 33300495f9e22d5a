"""Names of the registries, read without importing what they name.

A registry is a plain dict literal (`OBJECTIVES = {'minimax': minimax, ...}`).
The flags need its keys long before JAX is wanted, so that `--help` and a
misspelt value answer at once; the keys are therefore read off the source.
"""

import ast
import functools
import importlib.util


@functools.cache
def names(module: str, registry: str) -> tuple[str, ...]:
  """Keys of the dict literal `registry` at the top level of `module`.

  Raises:
    LookupError: if the module has no such dict literal with string keys.
  """
  spec = importlib.util.find_spec(module)
  if spec is None or spec.origin is None:
    raise LookupError(f'no module {module}')
  with open(spec.origin, encoding='utf-8') as file:
    tree = ast.parse(file.read())
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
