"""HTML pages: templates, the style of their figures, pictures as data URIs."""

import base64
import io
from typing import Any

import jinja2
import matplotlib

matplotlib.use('Agg')

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

REAL, FAKE, D, LINE = '#111111', '#1b8a3a', '#1f5fbf', '#888888'
STYLE: Any = {
  'font.size': 9,
  'axes.spines.top': False,
  'axes.spines.right': False,
  'axes.linewidth': 0.7,
  'lines.linewidth': 1.2,
  'legend.frameon': False,
  'svg.fonttype': 'none',
  'svg.hashsalt': 'gan_jax',  # the same run gives the same file
}


def template(name: str) -> jinja2.Template:
  """A page of `templates/`; a variable that it is not given raises."""
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('gan_jax.figures'),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  return environment.get_template(name)


def plain(text: str) -> str:
  """A text that Matplotlib writes as it is: a dollar sign begins no formula."""
  return text.replace('$', r'\$')


def uri(figure: Figure, kind: str) -> str:
  """A figure (`png` or `svg`), which is closed, as the address of an <img>."""
  buffer = io.BytesIO()
  # An SVG file would hold the date.
  metadata = {'Date': None} if kind == 'svg' else None
  figure.savefig(
    buffer, format=kind, dpi=160, bbox_inches='tight', metadata=metadata
  )
  plt.close(figure)
  return data_uri(buffer.getvalue(), kind)


def data_uri(content: bytes, kind: str) -> str:
  """A picture (`png` or `svg`) as the address of an <img>."""
  mime = {'png': 'image/png', 'svg': 'image/svg+xml'}[kind]
  return f'data:{mime};base64,{base64.b64encode(content).decode()}'
