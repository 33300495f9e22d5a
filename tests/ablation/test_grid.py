"""The grid of an ablation: axes from words, cells, and what is compiled."""

import dataclasses
import re

import numpy as np
import pytest
from helpers.ablations import TOY

from gan_jax.ablation.grid import (
  add_networks,
  make_cells,
  parse_axes,
  parse_axis,
)
from gan_jax.ablation.plan import AblationOptions, make_plan
from gan_jax.config.schema import Config
from gan_jax.runtime.errors import ArgumentError


@pytest.mark.parametrize(
  'word, values',
  [
    ('objective=minimax,hinge', [('minimax',), ('hinge',)]),
    ('lr_g+lr_d=1e-4,2e-4', [(1e-4, 1e-4), (2e-4, 2e-4)]),
    ('lr_g+lr_d=1e-4/4e-4,1e-3/1e-3', [(1e-4, 4e-4), (1e-3, 1e-3)]),
    ('regularizer=;r1:10,r2:10', [('',), ('r1:10,r2:10',)]),
    ('flip=true,false', [(True,), (False,)]),
    ('--d_steps=1,2', [(1,), (2,)]),
    (
      'objective+regularizer=minimax/;wasserstein/clip:0.01',
      [('minimax', ''), ('wasserstein', 'clip:0.01')],
    ),
  ],
)
def test_an_axis_from_its_word(word, values):
  found = parse_axis(word)
  assert list(found.values) == values
  assert found.name == word.partition('=')[0].removeprefix('--')


@pytest.mark.parametrize(
  'word, message',
  [
    ('lrd=1', 'there is no option `lrd`; did you mean lr_d'),
    ('objective=minmax', '`objective=minmax`: did you mean minimax'),
    ('lr_d=-1,2', '`lr_d=-1.0`: use more than 0'),
    ('beta1_g=0.5,1', '`beta1_g=1.0`: use less than 1'),
    ('lr_d=fast', '`lr_d=fast`: use a number'),
    ('d_steps=1.5', '`d_steps=1.5`: use a whole number'),
    ('flip=maybe', '`flip=maybe`: use true or false'),
    ('lr_d', "there is no '='; write `vary=NAME=VALUE"),
    ('', "there is no '='; write `vary=NAME=VALUE"),
    ('lr_d=', 'there is no value; write `vary=NAME=VALUE'),
    ('lr_d=1,,2', 'a value of `lr_d` is missing; write'),
    ('workdi=1', 'did you mean network'),
    ('seed=1,2', 'varied by `seeds`'),
    ('workdir=a,b', 'no score depends on `workdir`'),
    ('lr_d=1e-4,1e-4', '0.0001 is there twice'),
    ('lr_d+lr_d=1,2', 'one option is there twice'),
    ('lr_g+lr_d=1/2/3', 'give one value for all of lr_g+lr_d, or 2'),
    ('lr_d=loguniform(0,1,3)', 'write loguniform(low,high,count)'),
    ('lr_d=uniform(2,1,3)', 'write uniform(low,high,count)'),
    ('lr_d=uniform(-2,1,9)', 'use more than 0'),
    ('d_steps=uniform(1,4,2)', '`d_steps` has no fractions'),
    ('lr_g+lr_d=uniform(1,2,3)/1', 'all need a range'),
  ],
)
def test_a_word_of_no_use_is_refused(word, message):
  with pytest.raises(ArgumentError, match=re.escape(message)):
    parse_axis(word)


def test_a_flag_is_varied_once():
  with pytest.raises(ArgumentError, match='`vary=lr_d`: is varied twice'):
    parse_axes(['lr_d=1,2', 'lr_g+lr_d=1,2'])


def test_a_range_is_drawn_from_the_search_seed_alone():
  word = 'lr_d=loguniform(1e-5,1e-1,400)'
  drawn = np.array(parse_axis(word, 3).values)[:, 0]
  assert drawn.tolist() == [v for (v,) in parse_axis(word, 3).values]
  assert (drawn >= 1e-5).all() and (drawn <= 1e-1).all()
  assert abs((drawn < 1e-3).mean() - 0.5) < 0.1  # uniform in the logarithm
  assert drawn.tolist() != [v for (v,) in parse_axis(word, 4).values]
  even = np.array(parse_axis('beta1_d=uniform(0.2,0.8,400)', 3).values)[:, 0]
  assert abs(even.mean() - 0.5) < 0.03
  both = parse_axis('lr_g+lr_d=loguniform(1e-5,1e-1,3)').values
  assert all(g == d for g, d in both)
  apart = parse_axis('lr_g+lr_d=uniform(1,2,3)/uniform(1,2,3)').values
  assert all(g != d for g, d in apart)


@pytest.mark.parametrize(
  'dataset, words, told',
  [
    ('digits', ['dataset=mnist,folder:/a/b'], None),
    ('ring', ['dataset=ring,grid', 'lr_d=1,2'], None),
    ('ring', ['dataset=ring,digits', 'network=mlp,dcgan'], None),
    ('ring', ['dataset=ring,digits', 'network+lr_d=mlp/1'], None),
    ('digits', ['dataset'], None),
    ('digits', ['dataset=ring,grid'], 'dataset+network=ring/mlp,grid/mlp'),
    ('ring', ['dataset=ring;digits'], 'dataset+network=ring/mlp;digits/dcgan'),
    (
      'ring',
      ['--lr_d+dataset=1/ring,2/mnist[:9]'],
      '--lr_d+dataset+network=1/ring/mlp,2/mnist[:9]/dcgan',
    ),
  ],
)
def test_a_varied_dataset_brings_its_network_where_none_is_named(
  dataset, words, told
):
  found = add_networks(words, Config(dataset=dataset))
  assert found == (tuple(words) if told is None else (told,))
  if told:
    for cell in make_cells(parse_axes(found)):
      config = Config(**cell.values)
      assert config.network == Config(dataset=config.dataset).network


def test_a_folder_beside_points_asks_for_a_network():
  with pytest.raises(ArgumentError, match='folder:/a.*name one with `network`'):
    add_networks(['dataset=ring,folder:/a'], Config())


def test_cells_are_the_cross_product():
  found = make_cells(
    [parse_axis('objective=minimax,hinge'), parse_axis('lr_g+lr_d=1e-4,2e-4')]
  )
  assert [c.label for c in found] == [
    'objective=minimax, lr_g+lr_d=0.0001',
    'objective=minimax, lr_g+lr_d=0.0002',
    'objective=hinge, lr_g+lr_d=0.0001',
    'objective=hinge, lr_g+lr_d=0.0002',
  ]
  assert found[2].values == {'objective': 'hinge', 'lr_g': 1e-4, 'lr_d': 1e-4}
  assert found[2].settings == {'objective': 'hinge', 'lr_g+lr_d': 1e-4}
  apart = make_cells([parse_axis('lr_g+lr_d=1e-4/1e-4,1e-4/2e-4')])
  assert apart[0].settings == {'lr_g': 1e-4, 'lr_d': 1e-4}
  assert apart[0].label == 'lr_g=0.0001, lr_d=0.0001'
  assert [c.label for c in make_cells([])] == ['base']
  # The last axis is the fastest, of whatever lengths they are.
  uneven = make_cells([parse_axis('d_steps=1,2'), parse_axis('g_steps=1,2,3')])
  assert [(*c.values.values(),) for c in uneven] == [
    (d, g) for d in (1, 2) for g in (1, 2, 3)
  ]


def test_runs_are_grouped_by_what_is_compiled():
  words = (
    'objective=minimax,hinge',
    'regularizer=;r1:1;r1:9',
    'lr_g=1e-4,1e-3',
  )
  base = dataclasses.replace(TOY, workdir='a', seed=5)
  plan = make_plan(AblationOptions(base, words, 3))
  assert plan.runs == 2 * 3 * 2 * 3
  # Without a penalty, with one of any weight; of either objective.
  assert [len(p) for p in plan.programs] == [6, 12, 6, 12]
  cells = [[m.cell for m in p[::3]] for p in plan.programs]
  assert cells == [[0, 1], [2, 3, 4, 5], [6, 7], [8, 9, 10, 11]]
  assert [m.seed for m in plan.programs[0]] == [5, 6, 7] * 2
  for program in plan.programs:
    for m in program:
      values = plan.cells[m.cell].values
      assert {n: getattr(m.config, n) for n in values} == values
      assert m.config.seed == m.seed
