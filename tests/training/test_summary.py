"""What a run would be made of, told for every architecture."""

import re

import numpy as np
import pytest
from helpers import commands

from gan_jax import data
from gan_jax.config.schema import Config
from gan_jax.game.state import count_parameters
from gan_jax.networks import ARCHITECTURES
from gan_jax.training import setup, summary, train


def pictures(side):
  """A hundred black images."""
  images = np.zeros((100, side, side, 1), np.uint8)
  return data.as_dataset((images, np.zeros(100, np.int32)), classes=10)


def config_of(name, **changes):
  architecture = ARCHITECTURES[name]
  dim, *rest = architecture.samples[0]
  settings = dict(
    network=name,
    dataset='digits' if rest else {1: 'delta', 2: 'ring'}[dim],
    image_size=dim if rest else 0,
    batch_size=4,
    devices=1,
    width=8 if architecture.width else 0,
  )
  return Config(**(settings | changes))


@pytest.fixture(autouse=True)
def _no_preparation(monkeypatch):
  """Nothing is prepared: no more is asked of images than their shape."""
  load = data.load

  def known(name, **how):
    if name == 'digits':
      return pictures(how['image_size'] or 8)
    return load(name, **how)

  monkeypatch.setattr(data, 'load', known)


def flops(text):
  return float(re.search(r'([\d,]+) FLOPs', text)[1].replace(',', ''))


QUICK = {'dcgan', 'dirac', 'mlp'}


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow])
    for name in sorted(ARCHITECTURES)
  ],
)
def test_every_architecture_is_summarised(name):
  config = config_of(name)
  text = summary.summarise(config)
  state = setup.build(config).shapes
  for player, params in (('G', state.g.params), ('D', state.d.params)):
    whole = count_parameters(params)
    assert f'{player}: {whole:,} parameters' in text
  counts = [int(n.replace(',', '')) for n in re.findall(r' ([\d,]+)\n', text)]
  assert sum(counts) == sum(
    count_parameters(p.params) for p in (state.g, state.d)
  )
  assert flops(text) > 0
  assert '--batch_size=4' in text


def test_work_grows_with_what_a_step_does():
  def of(**changes):
    return flops(
      summary.summarise(config_of('mlp', width=512, batch_size=64, **changes))
    )

  once = of()
  # A layer of 512 x 512 among smaller ones, and three times its forward pass.
  products = 2 * 64 * (8 * 512 + 512 * 512 + 512 * 2)
  # D: G's pass, three of D on both kinds. G: three of both. All of one width.
  assert once == pytest.approx((1 + 6 + 3 + 2) * products, rel=0.1)
  five = of(d_steps=5)
  assert five == pytest.approx(once + 4 * 7 * products, rel=0.1)
  assert of(accumulate=4) == once
  assert of(g_steps=2) == pytest.approx(once + 5 * products, rel=0.1)
  assert of(regularizer='r1') > 1.2 * once


SLOW = pytest.mark.slow
LAZY = dict(regularizer='r1', regularizer_every=16)


@pytest.mark.parametrize(
  ('changes', 'told'),
  [
    pytest.param(dict(schedule='unrolled'), 'at least ', marks=SLOW),
    (dict(schedule='simultaneous'), 'at most '),
    (LAZY, 'at most '),
    (dict(schedule='unrolled') | LAZY, 'in the order of '),
    pytest.param(dict(regularizer='r1'), '', marks=SLOW),
  ],
)
def test_a_number_that_is_a_bound_is_called_one(changes, told):
  text = summary.summarise(config_of('mlp', **changes))
  assert re.search(rf'--batch_size=4: {told}[\d,]+ FLOPs$', text)


def test_the_command_prints_it_and_trains_nothing(monkeypatch, tmp_path):
  monkeypatch.setattr(summary, 'summarise', lambda config: 'so many')
  monkeypatch.setattr(train, 'train_config', lambda config: pytest.fail('went'))
  words = ('--summary', '--dataset=ring', f'--workdir={tmp_path / "a"}')
  done = commands.run('train', *words)
  assert (done.returncode, done.stdout) == (0, 'so many\n'), done.stderr
