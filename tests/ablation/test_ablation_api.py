"""`gj.ablate`: components, numbers and names from Python."""

import json

import numpy as np
import optax
import pytest
from helpers import ablation_folder
from helpers.ablations import SoftHinge, rows, run_fake

import gan_jax as gj
from gan_jax.ablation.api import (
  Table,
  label_value,
  plan_components,
  read_table,
)
from gan_jax.ablation.report import write_ablation_report
from gan_jax.ablation.results import read_results
from gan_jax.ablation.spec import CellSpec
from gan_jax.config import app
from gan_jax.config.schema import Config

OPTIONS = dict(
  width=8,
  depth=1,
  batch_size=8,
  log_every=4,
  checkpoint_every=6,
  eval_samples=64,
)


def plan(path, vary, data='ring', trainer=None, seeds=2, **changes):
  given = OPTIONS if trainer is None else {'batch_size': 8}
  given = given | dict(workdir=str(path), steps=12, metrics=['modes'])
  names = ('only', 'identity', 'primary', 'better', 'layout')
  grid = {name: changes.pop(name) for name in names if name in changes}
  return plan_components(
    given | changes, data, trainer, vary, seeds=seeds, **grid
  )


@pytest.fixture(scope='module')
def trainer():
  return gj.make_trainer((2,), objective='hinge', network='mlp', width=8)


def programs(plan):
  return [sorted({m.cell for m in program}) for program in plan.programs]


def test_cells_that_differ_in_numbers_alone_are_one_program(tmp_path):
  found = plan(
    tmp_path,
    {
      'objective': [SoftHinge, SoftHinge(temperature=2.0), 'hinge'],
      'lr_g+lr_d': [1e-3, (1e-3, 4e-3)],
    },
  )
  assert [c.label for c in found.cells][:3] == [
    'objective=soft_hinge, lr_g=0.001, lr_d=0.001',
    'objective=soft_hinge, lr_g=0.001, lr_d=0.004',
    'objective=soft_hinge(temperature=2.0), lr_g=0.001, lr_d=0.001',
  ]
  assert programs(found) == [[0, 1, 2, 3], [4, 5]]
  hyper = found.specs[3].hyperparameters()
  assert hyper['objective.temperature'] == 2.0
  assert hyper['optimizer_d.learning_rate'] == 4e-3


def test_a_trainer_is_varied_by_its_parts(tmp_path, trainer):
  found = plan(
    tmp_path,
    {
      'objective': ['hinge', SoftHinge],
      'regularizers+ema': [
        ([], None),
        ([gj.regularizers.r1(weight=2.0)], gj.Ema(halflife_kimg=2.0)),
      ],
      'optimizer_g': {'sgd': optax.sgd(1e-2)},
      'optimizer_d.learning_rate': np.float32([0.5, 0.25]),
    },
    trainer=trainer,
  )
  assert programs(found) == [[0, 1], [2, 3], [4, 5], [6, 7]]
  last = found.cells[-1]
  assert last.label == (
    'objective=soft_hinge, regularizers=r1(weight=2.0),'
    ' ema=ema(halflife_kimg=2.0), optimizer_g=sgd,'
    ' optimizer_d.learning_rate=0.25'
  )
  game = found.specs[-1].trainer.game
  assert isinstance(game.objective, SoftHinge) and [*game.regularizers] == [
    'r1'
  ]
  hyper = found.specs[-1].hyperparameters()
  assert hyper['optimizer_d.learning_rate'] == 0.25
  assert hyper['regularizers.r1.weight'] == 2.0
  assert not found.specs[0].has_average and found.specs[-1].has_average


def test_numbers_go_by_flag_or_by_path(tmp_path, trainer):
  for vary in ({'lr_d': [1, 2]}, {'optimizer_d.learning_rate': [1, 2]}):
    for own in (None, trainer):
      found = plan(tmp_path, vary, trainer=own)
      assert programs(found) == [[0, 1]]
      rates = [
        spec.hyperparameters()['optimizer_d.learning_rate']
        for spec in found.specs
      ]
      assert rates == [1.0, 2.0]


def test_a_folder_is_known_again_by_parts_and_numbers(tmp_path, trainer):
  points = np.zeros((64, 2), np.float32)
  vary = {'objective': ['hinge', SoftHinge], 'lr_d': [1e-3, 2e-3]}
  how = dict(data=points, trainer=trainer, identity='v1')
  assert run_fake(plan(tmp_path / 'a', vary, **how)) == app.DONE
  assert run_fake(plan(tmp_path / 'a', vary, **how)) == app.DONE
  others = {
    'identity': how | {'identity': 'v2'},
    'seeds': how | {'seeds': 3},
    'batch_size': how | {'batch_size': 16},
    'data': how | {'data': points + 1},
    'optimizer_g.beta1': how
    | {'trainer': trainer.at({'optimizer_g.beta1': 0.25})},
  }
  for line, other in others.items():
    with pytest.raises(gj.IdentityError, match=f'{line}: .* there, .* now'):
      run_fake(plan(tmp_path / 'a', vary, **other))
  for changed in ({**vary, 'lr_d': [1e-3]}, {'objective': ['hinge']}):
    with pytest.raises(gj.IdentityError, match='vary: .* there, .* now'):
      run_fake(plan(tmp_path / 'a', changed, **how))


def test_options_of_the_run_can_be_varied_beside_a_trainer(tmp_path, trainer):
  found = plan(tmp_path, {'batch_size': [4, 8]}, trainer=trainer)
  assert [spec.config.batch_size for spec in found.specs] == [4, 8]
  assert programs(found) == [[0], [1]]


def test_a_varied_dataset_brings_its_network(tmp_path):
  found = plan(tmp_path, {'dataset': ['ring', 'digits']}, data=None)
  assert [s.config.network for s in found.specs] == ['mlp', 'dcgan']


@pytest.mark.parametrize(
  'vary, changes, message',
  [
    ({'lrd': [1]}, {}, '`vary=lrd`: there is no option `lrd`; did you mean'),
    ({'lr_d': []}, {}, '`vary=lr_d`: there is no value'),
    ({'lr_d': 1e-3}, {}, '`vary=lr_d`: give a list of values'),
    ({'objective': 'hinge'}, {}, '`vary=objective`: give a list of values'),
    ({'lr_d': ['fast']}, {}, '`lr_d=fast`: use a number'),
    ({'objective': ['hing']}, {}, 'hing.*did you mean hinge'),
    ({'lr_d': [1, 1.0]}, {}, '1 is there twice; give a mapping of labels'),
    ({'lr_d': [1], 'lr_g+lr_d': [2]}, {}, '`vary=lr_d`: is varied twice'),
    ({'lr_g+lr_d': [(1, 2, 3)]}, {}, 'give 2 values'),
    ({'seed': [1, 2]}, {}, 'varied by `seeds`'),
    ({'workdir': ['a']}, {}, 'no score depends on `workdir`'),
    ({'objective.warmth': [1]}, {}, '`objective.warmth=1.0`: no such hyper'),
    ({}, dict(metrics=[]), 'name what runs are ranked by'),
    ({}, dict(data=None), '`data=None`: give the data'),
    ({}, dict(lrd=1), '`lrd=1`: no such option'),
    ({}, dict(layout='fast'), '`layout=fast`: use auto'),
    ({}, dict(only='3/2'), '`only=3/2`: write K/N'),
    ({}, dict(seeds=0), '`seeds=0`'),
  ],
)
def test_what_is_of_no_use_is_named(vary, changes, message, tmp_path):
  with pytest.raises(gj.ArgumentError, match=message):
    found = plan(tmp_path / 'a', vary, **changes)
    for spec in found.specs:
      spec.hyperparameters()
  assert not (tmp_path / 'a').exists()


@pytest.mark.parametrize(
  'vary, message',
  [
    ({'depth': [1, 2]}, '`vary=depth`: a trainer has no such part'),
    ({'objective': ['hing']}, 'hing.*did you mean hinge'),
    ({'objective': [3]}, 'objective'),
    ({'ema': ['long']}, '`ema=long`: has no names'),
    ({'objective.warmth': [1]}, 'there are .*optimizer_g.learning_rate'),
  ],
)
def test_what_a_trainer_does_not_have_is_named(
  vary, message, tmp_path, trainer
):
  with pytest.raises(gj.ArgumentError, match=message):
    found = plan(tmp_path, vary, trainer=trainer)
    for spec in found.specs:
      spec.hyperparameters()


def test_labels_say_what_differs():
  assert label_value(gj.regularizers.r1(weight=3.0)) == 'r1(weight=3.0)'
  assert label_value([gj.regularizers.r1(), None]) == 'r1+none'
  assert label_value([]) == 'none' and label_value(SoftHinge) == 'soft_hinge'
  assert label_value(optax.sgd(1.0)) == 'GradientTransformationExtraArgs'
  assert label_value(np.bool_(True)) is True


def test_the_table_is_the_folder_s(tmp_path):
  vary = {'objective': ['hinge', SoftHinge], 'lr_g': [1e-3, 1e15]}
  asked = plan(tmp_path / 'a', vary, identity='v1')
  assert run_fake(asked) == app.DONE
  table = read_table(asked)
  assert str(table).startswith('|    | cell ') and '95% interval' in str(table)
  assert table.ranking[0]['rank'] == 1
  assert table.ranking[0]['mean'] == pytest.approx(14.5, abs=0.01)
  assert [r['diverged'] for r in table.ranking] == [0, 0, 2, 2]
  assert table.rows[0]['objective'] == 'hinge'
  assert len(table.rows) == len(rows(tmp_path / 'a')) == 8
  assert table.to_csv(tmp_path / 'rows.csv').count('\n') == 9
  for ours, theirs in zip(rows(tmp_path, 'rows.csv'), rows(tmp_path / 'a')):
    assert {n: theirs[n] for n in ('seed', 'outcome', 'objective')} == {
      n: ours[n] for n in ('seed', 'outcome', 'objective')
    }
  part = read_table(plan(tmp_path / 'a', vary, only='1/2'))
  assert str(part) == str(table)
  record = json.loads((tmp_path / 'a/plan.json').read_text())
  assert record['options']['vary'] == [
    'objective=hinge,soft_hinge',
    'lr_g=0.001,1000000000000000.0',
  ]
  assert [i['given'] for i in record['identities']] == ['v1', 'v1']
  write_ablation_report(tmp_path / 'a')
  text = (tmp_path / 'a/report.html').read_text()
  assert 'optimizer_d.beta1' in text  # declared by both programs
  assert '>objective.temperature<' not in text  # by one of them


def test_what_a_cell_is_called_is_no_formula_in_a_file(tmp_path):
  plan = ablation_folder.plan_of({'objective': ['=1+1', 'b']}, [0, 1])
  lines = [
    ablation_folder.row_of(i, cell, s, 'done', 9, {'swd': i - 2.0, 'modes': 1})
    for i, cell in enumerate(plan['cells'])
    for s in range(2)
  ]
  folder = ablation_folder.write(tmp_path, plan, lines)
  table = Table(read_results(folder), folder)
  table.to_csv(tmp_path / 'own.csv')
  found = rows(tmp_path, 'own.csv')
  assert [r['objective'] for r in found] == ["'=1+1"] * 2 + ['b'] * 2
  assert [float(r['swd']) for r in found] == [-2, -2, -1, -1]


def test_metrics_of_ones_own_leave_a_cell_to_its_names():
  config = Config(dataset='ring')
  assert CellSpec(config).named and CellSpec(config, {'metrics': ()}).named
  assert not CellSpec(config, {'objective': SoftHinge}).named


def test_the_process_is_set_up_as_that_of_a_run(monkeypatch, tmp_path):
  """Its compilation cache, and the other processes of its job."""
  asked = []

  def join(config):
    asked.append((config.compilation_cache, config.multihost))
    raise KeyboardInterrupt

  monkeypatch.setattr('gan_jax.training.train.join_job', join)
  with pytest.raises(KeyboardInterrupt):
    gj.ablate(
      tmp_path / 'a',
      data='ring',
      vary={'lr_g': [1e-3, 1e-2]},
      steps=2,
      metrics='modes',
      compilation_cache=str(tmp_path),
      multihost=True,
    )
  assert asked == [(str(tmp_path), True)]
