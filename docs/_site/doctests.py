"""Shows the doctests of docstrings as code: Griffe calls what is here."""

import re
from typing import Any

import griffe

# From a prompt to the next empty line: what is typed, and what comes of it.
_DOCTEST = re.compile(r'^(?P<margin> *)>>>.*?(?=\n\s*\n|\Z)', re.DOTALL | re.M)
_FLAGS = re.compile(r'(\n *\.\.\.)? *# doctest: .*')


class Doctests(griffe.Extension):
  """Puts a fence round every doctest, which no section's title announces."""

  def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
    """Changes the text of an object's docstring."""
    if obj.docstring:
      text = _FLAGS.sub('', obj.docstring.value)
      obj.docstring.value = _DOCTEST.sub(
        r'\g<margin>```pycon\n\g<0>\n\g<margin>```', text
      )
