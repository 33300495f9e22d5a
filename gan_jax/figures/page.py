"""HTML pages: the templates of reports."""

from typing import Any


def load_template(name: str) -> Any:
  """A page of `templates/`; a value that it is not given is an error.

  Raises:
    jinja2.UndefinedError: while rendering, for a name without a value.
  """
  import jinja2

  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('gan_jax'),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  return environment.get_template(name)
