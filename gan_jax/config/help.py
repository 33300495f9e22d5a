"""What `--help` and `--help=WORD` print of a command's flags.

The flags of `Config` stand under the headings that `Config` gives them, those
that a command defines itself before them. Nothing is imported for it but the
names of what may be chosen.
"""

import difflib
import re
import textwrap
from collections.abc import Sequence
from typing import Any

from absl import flags

from gan_jax.config import schema

_OWN = 'This command'
_KINDS = {'int': 'COUNT', 'float': 'NUMBER'}


def _own_flags(values: flags.FlagValues) -> list[tuple[str, flags.Flag[Any]]]:
  """(heading, flag) of every flag that is not absl's or another library's."""
  placed = []
  for module, defined in values.flags_by_module_dict().items():
    if module.startswith('absl'):
      continue
    for flag in defined:
      field = schema.FIELDS.get(flag.name)
      shared = field is not None and flag.help == field.metadata['help']
      group = field.metadata['group'] if field and shared else _OWN
      placed.append((group, flag))
  return placed


def _choices(name: str) -> tuple[str, ...]:
  return schema.words(name) if name in schema.FIELDS else ()


def _shown(default: Any) -> str:
  """A default value as a person reads it."""
  if default is None:
    return 'not given'
  if isinstance(default, list):
    return ', '.join(map(str, default)) or 'none'
  text = str(default).lower() if isinstance(default, bool) else str(default)
  return text or 'empty'


def _heading(flag: flags.Flag[Any]) -> str:
  """`--name=KIND (default: value)`."""
  default = _shown(flag.default)
  if flag.boolean:
    return f'--[no]{flag.name} (default: {default})'
  kind = _KINDS.get(flag.flag_type(), 'TEXT')
  return f'--{flag.name}={kind} (default: {default})'


def _entry(flag: flags.Flag[Any], width: int) -> str:
  """A flag with its default, its text and its choices."""
  wrapped = textwrap.TextWrapper(
    width,
    initial_indent=' ' * 6,
    subsequent_indent=' ' * 6,
    break_long_words=False,
    break_on_hyphens=False,
  )
  text = (flag.help or '').partition(';\n    repeat this option')[0]
  lines = [f'  {_heading(flag)}', *wrapped.wrap(text)]
  listed = _choices(flag.name)
  if listed:
    lines += wrapped.wrap(f'Choices: {", ".join(listed)}.')
  return '\n'.join(lines)


def page(values: flags.FlagValues, about: str, width: int) -> str:
  """Everything about a command: its docstring, and its flags by heading."""
  placed = _own_flags(values)
  sections = [about.strip()]
  shared = (field.metadata['group'] for field in schema.FIELDS.values())
  for group in dict.fromkeys([_OWN, *shared]):
    members = [flag for g, flag in placed if g == group]
    if members:
      entries = '\n'.join(_entry(flag, width) for flag in members)
      sections.append(f'{group}\n{entries}')
  sections.append(
    '--help=WORD finds flags; --flagfile=FILE reads flags from a file, which'
    '\nthose after it override.'
  )
  return '\n\n'.join(sections)


def search(values: flags.FlagValues, word: str, width: int) -> str | None:
  """The flags that have a word in name, text or choices; None if none has."""
  sought = word.strip('-').replace('-', '_').lower()
  named, others = [], []
  for _, flag in _own_flags(values):
    text = ' '.join([flag.help or '', *_choices(flag.name)]).lower()
    if sought in flag.name:
      named.append(flag)
    elif sought in text or sought.replace('_', ' ') in text:
      others.append(flag)
  entries = [_entry(flag, width) for flag in [*named, *others]]
  return '\n'.join(entries) if entries else None


def suggestions(values: flags.FlagValues, word: str) -> Sequence[str]:
  """Names of flags, and words of their texts, that are like a word."""
  placed = _own_flags(values)
  names = [flag.name for _, flag in placed]
  texts = set(
    re.findall(r'\w+', ' '.join(flag.help or '' for _, flag in placed).lower())
  )
  return difflib.get_close_matches(word.strip('-'), [*names, *sorted(texts)])
