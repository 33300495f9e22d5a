"""The command `gan-jax COMMAND --name=value ...`, also `python -m gan_jax`.

Each command is a module of the package that runs by itself as well: `gan-jax
train ...` is `python -m gan_jax.train ...`.
"""

import ast
import pathlib
import runpy
import sys

from gan_jax import __version__
from gan_jax.runtime.names import suggest

COMMANDS = (
  'train',
  'sample',
  'evaluate',
  'ablate',
  'prepare',
  'report',
  'doctor',
)


def _summary(command: str) -> str:
  """What a command does: its docstring up to the colon."""
  source = pathlib.Path(__file__).with_name(f'{command}.py')
  text = ast.get_docstring(ast.parse(source.read_text(encoding='utf-8'))) or ''
  return text.partition(':')[0]


def _usage() -> str:
  lines = [f'  {name:10}{_summary(name)}.' for name in COMMANDS]
  return '\n'.join(
    [
      'Generative adversarial networks in JAX.',
      '',
      'usage: gan-jax COMMAND --name=value ...',
      '',
      *lines,
      '',
      'gan-jax COMMAND --help lists the flags of a command, --help=WORD finds',
      'some; python -m gan_jax.COMMAND is the same command. gan-jax --version',
      'prints the version.',
    ]
  )


def main() -> int:
  """Runs the command that the first word names, or says which there are."""
  name, *words = sys.argv[1:] or ['--help']
  if name in ('--help', '-h', 'help'):
    print(_usage())
    return 0
  if name == '--version':
    print(f'gan-jax {__version__}')
    return 0
  if name not in COMMANDS:
    remedy = suggest(name, COMMANDS)
    if name.startswith('-'):
      remedy = f'name one first, as in `gan-jax train {name}`'
    what = 'no command' if name.startswith('-') else 'no such command'
    print(f'error: {name}: {what}; {remedy}', file=sys.stderr)
    return 2
  sys.argv[1:] = words
  runpy.run_module(f'gan_jax.{name}', run_name='__main__', alter_sys=True)
  return 0


if __name__ == '__main__':
  sys.exit(main())
