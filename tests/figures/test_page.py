"""Pages of HTML."""

import jinja2
import pytest

from gan_jax.figures import page


def test_a_value_that_a_page_is_not_given_is_an_error():
  for name in ('report.html.j2', 'ablation.html.j2'):
    with pytest.raises(jinja2.UndefinedError):
      page.load_template(name).render()
