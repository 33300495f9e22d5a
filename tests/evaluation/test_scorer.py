"""Rows of scores: never twice, never half; of generators and of samples."""

import dataclasses
import json
import threading

import jax
import numpy as np
import PIL.Image
import pytest

import gan_jax as gj
from gan_jax import data
from gan_jax.evaluation import scorer, sources
from gan_jax.evaluation.evaluator import Evaluator
from gan_jax.evaluation.score_file import (
  ScoreFile,
  find_best,
  replace_nonfinite,
)
from gan_jax.evaluation.scorer import EvaluationOptions, Scorer
from gan_jax.metrics import Metric
from gan_jax.networks.base import Net, Networks
from gan_jax.runtime import sharding
from gan_jax.runtime.errors import ArgumentError


def apply(params, stats, z, *, train, key=None, label=None):
  return z * params['scale'], stats


NET = Net(lambda key: ({'scale': np.float32(1)}, {}), apply)
PLANE = Networks(NET, NET, 2, (2,))


@pytest.fixture(scope='module')
def evaluator():
  mesh = sharding.make_mesh(1)
  ring = data.load('ring')
  return Evaluator(ring, PLANE, ['modes', 'fid'], samples=64, mesh=mesh)


def score(evaluator, path, step=12, scale=1.0, seeds=(0,)):
  return Scorer(evaluator, ScoreFile(path), seeds).score_generator(
    step, {'scale': np.float32(scale)}, {}, True
  )


def test_a_row_has_scores_and_the_whole_protocol(evaluator, tmp_path):
  path = tmp_path / 'metrics.jsonl'
  row, is_new = score(evaluator, path, seeds=(0, 1, 2))
  assert is_new and ScoreFile(path).rows() == [row]
  assert row['step'] == 12
  by_seed = row['by_evaluation_seed']['fid']
  assert len(by_seed) == 3 and len(set(by_seed)) == 3
  assert row['fid'] == pytest.approx(np.mean(by_seed))
  assert row['fid/evaluation_std'] == pytest.approx(np.std(by_seed, ddof=1))
  protocol = row['protocol']
  assert protocol['evaluation_seeds'] == [0, 1, 2] and protocol['ema'] is True
  assert protocol['samples'] == protocol['real_samples'] == 64
  assert protocol['reference'] == 'ring' and protocol['reference_fingerprint']
  assert protocol['metrics'] == {'modes': '2', 'fid': '1'}
  assert row['versions']['jax'] and row['devices']


def test_nothing_is_scored_twice(evaluator, tmp_path):
  path = tmp_path / 'metrics.jsonl'
  one, _ = score(evaluator, path)
  content = path.read_bytes()
  assert score(evaluator, path) == (one, False)
  assert path.read_bytes() == content
  params = {'scale': np.float32(1)}
  table = Scorer(evaluator, ScoreFile(path))
  assert table.is_scored(12, params, {}, True)
  assert not table.is_scored(12, params, {}, False)
  # Another moment, generator or protocol is another score.
  for change in ({'step': 13}, {'scale': 2.0}, {'seeds': (1,)}):
    assert score(evaluator, path, **change)[1]
  rows = ScoreFile(path).rows()
  assert len(rows) == 4 and len({row['key'] for row in rows}) == 2


def test_a_cut_line_is_mended_and_its_score_taken_again(evaluator, tmp_path):
  path = tmp_path / 'metrics.jsonl'
  score(evaluator, path, step=4)
  score(evaluator, path, step=8)
  path.write_bytes(path.read_bytes()[:-20])
  assert score(evaluator, path, step=8)[1]
  assert [row['step'] for row in ScoreFile(path).rows()] == [4, 8]


def test_a_damaged_line_is_left_out_and_warned_of_once(tmp_path, capsys):
  table = ScoreFile(tmp_path / 'metrics.jsonl')
  row = {'step': 1, 'key': 'k', 'model': 'm', 'primary': {}}
  table.add(row)
  with open(table.path, 'ab') as file:
    file.write(b'{"step": 2, "key"\n\xff\n7\n{}\n')
  table.add({**row, 'step': 3})
  assert [found['step'] for found in table.rows()] == [1, 3]
  err = capsys.readouterr().err
  assert err.count(' are damaged (') == 1
  assert 'lines 2, 3, 4 and 1 more are damaged' in err


def test_two_writers_leave_one_row(tmp_path):
  row = {'step': 1, 'key': 'k', 'model': 'm', 'primary': {}, 'x': 1.0}
  threads = [
    threading.Thread(target=ScoreFile(tmp_path / 'm.jsonl').add, args=(row,))
    for _ in range(8)
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert ScoreFile(tmp_path / 'm.jsonl').rows() == [row]


def test_what_is_not_finite_is_null_and_never_the_best(
  evaluator, tmp_path, capsys
):
  values = [3.0, float('nan'), None, 2.0, float('inf'), 2.0]
  rows = [
    {'step': i, 'fid': x, 'primary': {'fid': 'fid'}}
    for i, x in enumerate(values)
  ]
  assert find_best(rows, 'fid', 'lower')['step'] == 3
  assert find_best(rows, 'fid', 'higher')['step'] == 0
  assert find_best(rows[1:3], 'fid', 'lower') is None
  text = json.dumps(replace_nonfinite({'a': [1.0, float('nan')]}))
  assert text == '{"a": [1.0, null]}'
  path = tmp_path / 'metrics.jsonl'
  score(evaluator, path, scale=np.nan)
  (row,) = ScoreFile(path).rows()
  assert row['fid'] is None and 'not finite' in row['unscored']['fid']
  assert 'warning: step 12: fid is not finite: gen' in capsys.readouterr().err


def test_a_draw_without_a_score_costs_only_its_row(tmp_path):
  def compute(real, fake, *, seed):
    if seed == 1:
      raise ValueError('fake has collapsed')
    return {'shift': float(seed)}

  metric = Metric('shift', compute, {'shift': 'lower'}, sees='points')
  ring, mesh = data.load('ring'), sharding.make_mesh(1)
  evaluator = Evaluator(ring, PLANE, [metric], samples=8, mesh=mesh)
  row, _ = score(evaluator, tmp_path / 'm.jsonl', seeds=(0, 1, 2))
  assert row['unscored'] == {'shift': 'fake has collapsed'}
  (row,) = ScoreFile(tmp_path / 'm.jsonl').rows()
  assert row['shift'] is None
  assert row['by_evaluation_seed']['shift'] == [0.0, None, 2.0]
  row, _ = score(evaluator, tmp_path / 'm.jsonl', seeds=(2,))
  assert row['shift'] == 2 and 'unscored' not in row


# Images and arrays


def save(path, x):
  path.mkdir()
  for i, image in enumerate(x):
    PIL.Image.fromarray(image.squeeze()).save(path / f'{i:03d}.png')


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
  root = tmp_path_factory.mktemp('pictures')
  x = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), np.uint8)
  save(root / 'folder', x)
  np.savez(root / 'x.npz', samples=x)
  np.savez(root / 'two.npz', a=x, b=x)
  np.savez(root / 'floats.npz', samples=x / 255)
  np.savez(root / 'points.npz', samples=x.reshape(20, -1)[:, :2] / 255)
  save(root / 'same', x[[0] * 5])
  (root / 'empty').mkdir()
  for name, third in ('sizes', x[0, :7, :7]), ('kinds', x[:3, ..., 0].T):
    save(root / name, x[:2])
    PIL.Image.fromarray(third.squeeze()).save(root / name / 'c.png')
  (root / 'bad.npz').write_bytes(b'PK\3\4 nothing')
  return root


PIXELS = EvaluationOptions(
  metrics='fid', features='pixels', against='digits', devices=1
)


@pytest.fixture
def evaluate(pictures, tmp_path, digits):
  def evaluate(name, out='metrics.jsonl', **changes):
    options = dataclasses.replace(PIXELS, **changes)
    where = str(pictures / name) if (pictures / name).exists() else name
    return scorer.evaluate_images(options, where, tmp_path / out)

  return evaluate


def test_a_folder_and_an_array_are_the_same_images(
  evaluate, pictures, tmp_path, capsys
):
  one, two = evaluate('folder'), evaluate('x.npz')
  assert one['model'] == two['model']
  assert one['fid@pixels'] == two['fid@pixels'] > 0
  assert 'fid' not in one  # FID is of Inception's 2048 alone
  capsys.readouterr()
  assert evaluate('x.npz') == two
  assert 'scored before' in capsys.readouterr().out
  rows = ScoreFile(tmp_path / 'metrics.jsonl').rows()
  assert len(rows) == 2 and rows[0]['step'] is None
  # Against itself, as a folder and as an array.
  for name in ('x.npz', 'folder'):
    row = evaluate('x.npz', against=str(pictures / name))
    assert row['fid@pixels'] == pytest.approx(0, abs=1e-6)


def test_samples_are_scored_without_a_file(evaluate, pictures):
  """By name and as arrays: what the command says."""
  row, options = evaluate('x.npz'), {'metrics': 'fid', 'features': 'pixels'}
  with np.load(pictures / 'x.npz') as archive:
    x = archive['samples']
  digits = data.load('digits')
  for images, against in (
    (str(pictures / 'x.npz'), 'digits'),
    (x, digits),
  ):
    scores = gj.evaluate(images, against, devices=1, **options)
    assert scores == {name: row[name] for name in scores}
    assert scores['fid@pixels'] > 0
  assert gj.evaluate(x, x, **options)['fid@pixels'] == pytest.approx(
    0, abs=1e-6
  )
  with pytest.raises(ArgumentError, match='`against=`: name what'):
    gj.evaluate(x, **options)
  with pytest.raises(ArgumentError, match=r'`images=an array .* give uint8'):
    gj.evaluate(x / 255.0, x, **options)
  with pytest.raises(ArgumentError, match='`ema=True`: no such option'):
    gj.evaluate(x, x, ema=True, **options)


def test_a_part_of_a_set_against_the_rest(evaluate):
  row = evaluate('digits[:900]', against='digits[900:]', samples=400)
  assert row['protocol']['reference'] == 'digits[900:]'
  assert 0 < row['fid@pixels'] < 5


def test_points_against_points(tmp_path):
  x = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
  np.savez(tmp_path / 'x.npz', samples=x)
  np.savez(tmp_path / 'y.npz', samples=x + np.float32([3, 4]))
  options = EvaluationOptions(
    metrics='fid,swd_points', against=str(tmp_path / 'x.npz'), devices=1
  )
  row = scorer.evaluate_images(
    options, str(tmp_path / 'y.npz'), tmp_path / 'm.jsonl'
  )
  assert row['fid'] == pytest.approx(25, rel=1e-4)
  assert row['swd_points'] == pytest.approx(5 * 2 / np.pi, rel=0.1)


def test_a_distance_of_few_samples_is_warned_of(evaluate, capsys):
  evaluate('digits[:100]', samples=60)
  assert capsys.readouterr().err.count('64 dimensions from 60 samples') == 1
  evaluate('digits[:100]', samples=70)
  assert 'dimensions' not in capsys.readouterr().err


BAD = {
  'too few': ('x.npz', {'samples': 21}, '`samples=21`: .* has 20'),
  'no folder': ('no/where', {}, '`images=no/where`: no such folder'),
  'no file': ('nowhere.npz', {}, '`images=nowhere.npz`: no such file'),
  'no archive': ('bad.npz', {}, 'bad.npz`: cannot be read'),
  'two arrays': ('two.npz', {}, 'has arrays a, b'),
  'floats': ('floats.npz', {}, 'floats.npz`: .*give uint8'),
  'points': ('points.npz', {}, 'samples of shape'),
  'constant': ('same', {}, 'all 5 samples are the same'),
  'empty': ('empty', {}, '^`images=.*/empty`: no image files there'),
  'sizes': (
    'sizes',
    {},
    '^`images=.*2 sizes, .*; resize and crop them to one',
  ),
  'kinds': (
    'kinds',
    {},
    '^`images=.*2 grey and 1 colour .*; convert them all',
  ),
  'no set': ('x.npz', {'against': 'digts'}, '^`against=digts`: .*digits'),
  'no reference': ('x.npz', {'against': ''}, '`against=`: name'),
  'a density': ('x.npz', {'against': 'ring'}, 'shape|density|points'),
  'no metrics': ('x.npz', {'metrics': ''}, '`metrics=`: name some of'),
  'seeds': ('x.npz', {'eval_seeds': 0}, '`eval_seeds=0`: use 1'),
}


@pytest.mark.parametrize('case', sorted(BAD))
def test_bad_images_are_refused(case, evaluate, tmp_path):
  name, changes, message = BAD[case]
  with pytest.raises(ValueError, match=message) as error:
    evaluate(name, **changes)
  assert error.value.exit_code in (1, 2)
  assert not (tmp_path / 'metrics.jsonl').exists()


def test_parzen_of_images_needs_its_validation_set(evaluate):
  def ask(**changes):
    options = {'metrics': 'parzen', 'real_samples': 50, 'samples': 60}
    changes = {'against': 'digits[1400:]', **options, **changes}
    return evaluate('digits[:1000]', features='', **changes)

  with pytest.raises(ArgumentError, match='`validation=`: name the real'):
    ask()
  with pytest.raises(ArgumentError, match='none of ms_ssim reads it'):
    ask(metrics='ms_ssim', validation='digits[1000:1100]')
  row = ask(validation='digits[1000:1100]')
  assert np.isfinite(row['parzen'])
  assert row['protocol']['validation'] == 'digits[1000:1100]'


def test_densities_of_files_and_sets_with_slashes_are_no_folders(
  tmp_path, monkeypatch
):
  def load(name, **options):
    return data.SampleSet(
      name, (8, 8, 1), np.zeros((3, 8, 8, 1), np.uint8), 'mark'
    )

  monkeypatch.setattr(data, 'load', load)
  for name in ('density:some/points.npz', 'density:some/points.csv'):
    assert sources.load_source(name, 'against', '').name == name
  with pytest.raises(ArgumentError, match='`against=a/b`: no such folder'):
    sources.load_source('a/b', 'against', '')
  (tmp_path / 'a' / 'b').mkdir(parents=True)
  monkeypatch.chdir(tmp_path)
  assert sources.load_source('a/b', 'against', '').name == 'folder:a/b'


def test_keys_are_drawn_once(evaluator, tmp_path):
  """A second score of one generator draws the same noise, by a key anew."""
  with jax.debug_key_reuse(True):
    one, _ = score(evaluator, tmp_path / 'a')
    two, _ = score(evaluator, tmp_path / 'b')
  assert one['by_evaluation_seed'] == two['by_evaluation_seed']


def test_a_distance_within_its_noise_is_said_to_be(tmp_path, capsys):
  ring = data.load('ring')
  mesh = sharding.make_mesh(1)
  evaluator = Evaluator(ring, None, ['kid'], samples=16, mesh=mesh)
  own = Scorer(evaluator, ScoreFile(tmp_path / 'scores.jsonl'), [0])
  x = np.asarray(ring.sample(jax.random.key(3), 16))
  row, _ = own.score_samples(x, 'x')
  assert abs(row['kid']) < row['kid_std']
  said = capsys.readouterr().err
  assert f'warning: kid {row["kid"]:.3g} cannot be told from 0: subsets' in said
  assert f'of 8 samples vary by {row["kid_std"]:.3g} (standard' in said
  own.score_samples(x + 9, 'y')
  assert capsys.readouterr().err == ''
