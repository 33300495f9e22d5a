"""A small run for the tests of scores, and how they are asked for."""

import dataclasses
import pathlib
import shutil

import pytest
from gan_jax.evaluation.scores import Scores

from gan_jax.config import app as doors
from gan_jax.evaluation import scorer
from gan_jax.evaluation.scorer import Request
from gan_jax.training import loop
from helpers import small

TOY = small.ring(depth=0, log_every=6, sample_every=12, checkpoint_every=4)
ASKED = Request(metrics='modes,fid', samples=64, devices=1)
CACHE = []


@pytest.fixture(scope='module', autouse=True)
def folders(tmp_path_factory):
  CACHE.append(str(tmp_path_factory.mktemp('xla')))
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('TFDS_DATA_DIR', str(tmp_path_factory.mktemp('tfds')))
    yield


def at(path, config=TOY, **changes):
  changes = {'compilation_cache': CACHE[0], **changes}
  return dataclasses.replace(config, workdir=str(path), **changes)


@pytest.fixture(scope='module', name='trained')
def trained_fixture(tmp_path_factory):
  path = tmp_path_factory.mktemp('run') / 'ring'
  assert loop.train(at(path)) == doors.DONE
  return path


@pytest.fixture(name='run')
def run_fixture(trained, tmp_path):
  return shutil.copytree(trained, tmp_path / 'run')


def rows(path):
  return Scores(pathlib.Path(path) / 'metrics.jsonl').rows()


def evaluate(run, request=ASKED, step=None, every=False):
  return scorer.evaluate_run(str(run), request, step, every)
