"""Pages: templates that miss nothing and escape all, figures that repeat."""

import base64

import jinja2
import matplotlib.pyplot as plt
import pytest

from gan_jax.figures import page


def test_a_template_that_is_not_given_a_variable_raises():
  environment = page.template('report.html.j2').environment
  with pytest.raises(jinja2.UndefinedError, match='missing'):
    environment.from_string('{{ missing }}').render()


def test_a_template_escapes_what_it_is_given():
  environment = page.template('report.html.j2').environment
  text = environment.from_string('{{ name }}').render(name='<script>&')
  assert text == '&lt;script&gt;&amp;'


@pytest.mark.parametrize('kind', ['png', 'svg'])
def test_a_figure_is_the_same_bytes_each_time_and_is_closed(kind):
  def address():
    figure, axes = plt.subplots(figsize=(1, 1))
    axes.plot([0, 1], [0, 1])
    with plt.rc_context(page.STYLE):
      return page.uri(figure, kind)

  before = plt.get_fignums()
  first, second = address(), address()
  assert first == second
  assert plt.get_fignums() == before
  head, _, content = first.partition(',')
  assert head == f'data:image/{kind.replace("svg", "svg+xml")};base64'
  decoded = base64.b64decode(content, validate=True)
  assert decoded.startswith(b'\x89PNG' if kind == 'png' else b'<?xml')
