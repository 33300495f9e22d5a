"""What every metric promises, whichever it is; a new entry is tested too."""

import numpy as np
import pytest

from gan_jax import data, metrics
from gan_jax.metrics import METRICS, Checks, Example, Metric, blocks
from gan_jax.runtime.errors import ArgumentError
from gan_jax.testing.metrics import check_metric, make_samples

N = 60


@pytest.mark.parametrize('name', METRICS)
def test_a_metric_keeps_what_metrics_promise(name):
  assert METRICS[name].name == name
  check_metric(METRICS[name])


# The conformance tests find what is wrong.


def shift(real, fake, *, seed=0):
  """How far the means are apart."""
  real, fake = metrics.arrays.as_tables(real, fake, 2)
  return {'shift': float(abs(real.mean() - fake.mean()))}


def example(expected=3.0):
  real = np.arange(4.0)[:, None]
  return (Example(real + 3, {'shift': expected}, real),)


SHIFT = Metric(
  'shift',
  shift,
  {'shift': 'lower'},
  sees='features',
  checks=Checks(example, best=0.0),
)


def changed(compute):
  return SHIFT._replace(compute=compute)


def late(real, fake, *, seed=0):
  scores = shift(real, fake)
  return {'shift': scores['shift'] + float(fake[0, 0])}


def counted(real, fake, *, seed=0, calls=[]):  # noqa: B006
  calls.append(1)
  return {'shift': shift(real, fake)['shift'] + len(calls) * 1e-9}


def moved(real, fake, *, seed=0):
  scores = shift(real, fake)
  fake += 1
  return scores


def careless(real, fake, *, seed=0):
  return {'shift': float(abs(real.mean() - fake.mean()))}


BROKEN = {
  'no checks': (SHIFT._replace(checks=None), 'says nothing that it could be'),
  'no example': (SHIFT._replace(checks=Checks(tuple)), 'has no example'),
  'a wrong value': (
    SHIFT._replace(checks=Checks(lambda: example(4.0))),
    r'example 0: shift is 3\.0, not 4\.0',
  ),
  'no direction': (SHIFT._replace(scores={'shift': 'up'}), 'give scores='),
  'another kind': (SHIFT._replace(sees='dots'), "sees 'dots'; give sees="),
  'no identifier': (SHIFT._replace(name='a-b'), 'an identifier'),
  'another name': (
    SHIFT._replace(scores={'shift': 'lower', 'more': ''}),
    r"declares \['shift', 'more'\], returns \['shift'\]",
  ),
  'no plain floats': (
    changed(lambda *a, seed: {'shift': np.float64(shift(*a)['shift'])}),
    'other things than finite floats',
  ),
  'a memory': (changed(counted), 'other scores for the same arguments'),
  'other arrays': (changed(moved), 'changes the arrays'),
  'an order': (
    changed(late)._replace(checks=Checks(lambda: example(6.0))),
    'shift depends on the order',
  ),
  'a wrong best': (
    SHIFT._replace(checks=Checks(example, best=1.0)),
    r'shift of like sets is 0\.0, not 1\.0',
  ),
  'upside down': (SHIFT._replace(scores={'shift': 'higher'}), 'higher is bett'),
  'a lower minimum': (SHIFT._replace(minimum=3), 'takes 2 samples for `fake`'),
  'NaN': (changed(careless)._replace(minimum=1), 'samples for `fake`|NaN'),
  'a reader': (SHIFT._replace(reads_real=False), 'reads `real`, and'),
}


def test_a_metric_that_keeps_its_promises_passes():
  check_metric(SHIFT)


@pytest.mark.filterwarnings('ignore:Mean of empty slice')
@pytest.mark.filterwarnings('ignore:invalid value')
@pytest.mark.parametrize('case', BROKEN)
def test_what_a_metric_lacks_or_breaks_is_said(case):
  metric, message = BROKEN[case]
  with pytest.raises((AssertionError, ValueError), match=message):
    check_metric(metric)


# Names.


def test_metrics_by_name_and_as_objects():
  assert metrics.select_metrics([SHIFT, 'fid']) == (SHIFT, METRICS['fid'])
  assert metrics.select_metrics('fid, kid')[1] is METRICS['kid']
  for given, message in {
    '': 'name some of fid, kid',
    'fid,fidd': '`metrics=fid,fidd`: fidd: did you mean fid',
    'fid,fid': 'fid is there twice',
  }.items():
    with pytest.raises(ArgumentError, match=message):
      metrics.select_metrics(given)


def test_a_direction_is_that_of_its_score():
  swd = METRICS['swd']
  assert swd.direction('swd_16@pixels') == swd.better == 'lower'
  assert METRICS['density'].direction('jsd_floor') == ''
  assert swd.direction('none') is None


# What single metrics are given.


@pytest.mark.parametrize('name', ['swd', 'ms_ssim'])
def test_images_are_bytes_of_any_size(name):
  options = METRICS[name].checks.options
  x = make_samples('images', N)
  for wrong in (x.astype(np.float32) / 255, x.astype(np.int64)):
    with pytest.raises(ArgumentError, match='give uint8'):
      METRICS[name].compute(x, wrong, seed=0, **options)
  odd = x[:40, :9, :12, :1]
  scores = METRICS[name].compute(odd, odd[::-1], seed=0, **options)
  assert np.isfinite([*scores.values()]).all()


@pytest.mark.parametrize('name', ['fid', 'kid', 'prdc', 'c2st'])
def test_features_whose_powers_overflow_are_refused(name):
  real, fake = np.random.default_rng(0).normal(size=(2, 20, 3))
  fake[0] *= 1e200
  with pytest.raises(ValueError, match=r'`fake=.*beyond 1e\+50.*scale'):
    METRICS[name].compute(real, fake)


def test_probabilities_are_distributions():
  p = make_samples('probabilities', N)
  for wrong, message in (
    (5 * p - 1, 'not logits'),
    (p * 0.5, 'do not sum to 1'),
    (p[:, :1], '1 class'),
  ):
    with pytest.raises(ArgumentError, match=message):
      metrics.inception_score(wrong)


def test_constant_samples():
  """An error where a score has no meaning, a bad score where it has."""
  grey, noise = (
    np.full((N, 16, 16, 3), 128, np.uint8),
    make_samples('images', N),
  )
  for real, fake, argument in [(grey, noise, 'real'), (noise, grey, 'fake')]:
    with pytest.raises(ArgumentError, match='without detail') as error:
      metrics.swd(real, fake, patches=8)
    assert error.value.argument == argument
  x = make_samples('features', N)
  same = np.tile(x[:1] + 0.01, (N, 1)).astype(np.float32)
  with pytest.raises(ArgumentError, match='`real=.*all samples are the same'):
    metrics.prdc(same, x)
  scores = metrics.prdc(x, same)
  assert scores['recall'] == 0 and scores['coverage'] < 0.3
  assert metrics.fid(x, same)['fid'] > 1
  scores = metrics.c2st(x, same)
  assert scores['c2st_nn_fake'] > 0.9
  # The classifier tells a point from a cloud only by where it lies.
  assert 0 <= scores['c2st'] <= 1


def test_truth_that_a_metric_cannot_use():
  x = np.zeros((9, 2))
  with pytest.raises(ArgumentError, match='spiral`: has no separate modes'):
    metrics.modes(x, truth=data.load('spiral'))
  with pytest.raises(ArgumentError, match='delta`: is no density'):
    metrics.density(x[:, :1], truth=data.load('delta'))
  for score in (metrics.modes, metrics.density):
    with pytest.raises(ArgumentError, match='2 dimensions and mixture_1d 1'):
      score(x, truth=data.load('mixture_1d'))


def test_blocks_do_not_show(monkeypatch):
  """Many padded blocks say what one says, and are compiled once."""
  rng = np.random.default_rng(0)
  real, fake = rng.normal(size=(75, 6)), rng.normal(0.2, 0.5, size=(91, 6))
  one = metrics.prdc(real, fake), metrics.c2st(real, fake)
  monkeypatch.setattr(blocks, 'ROWS', 32)
  assert (metrics.prdc(real, fake), metrics.c2st(real, fake)) == one
