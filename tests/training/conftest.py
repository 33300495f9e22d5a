"""Finished runs that the tests of this folder copy, and where they are put."""

import dataclasses
import shutil

import pytest


@pytest.fixture(scope='session')
def ring_run(programs, tmp_path_factory):
  """A finished run on a density: 24 steps, a row every 5, saved every 7."""
  # Here: jaxtyping must see the package first, and a conftest comes before it.
  from helpers import small

  from gan_jax.config import app
  from gan_jax.training.train import train_config

  path = tmp_path_factory.mktemp('finished') / 'ring'
  config = small.ring(
    steps=24,
    log_every=5,
    sample_every=24,
    checkpoint_every=7,
    compilation_cache=programs,
    workdir=str(path),
  )
  assert train_config(config) == app.DONE
  return config


@pytest.fixture
def finished(ring_run, tmp_path):
  """A copy of it that a test may change, as the configuration of its run."""
  path = tmp_path / 'finished'
  shutil.copytree(ring_run.workdir, path)
  return dataclasses.replace(ring_run, workdir=str(path))
