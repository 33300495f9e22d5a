"""The movie of experiments/gaussian_1d, from a curve in a file to a GIF."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

ROOT = pathlib.Path(__file__).parents[2]
SMALL = ['--steps=4', '--sample_every=1', '--batch_size=8', '--report=false']
SMALL += ['--width=8', '--compilation_cache=off', '--devices=1']


def movie(workdir, *words):
  return subprocess.run(
    [sys.executable, 'experiments/gaussian_1d/movie.py', *words]
    + [f'--workdir={workdir}'],
    cwd=ROOT,
    env=os.environ | {'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    timeout=300,
  )


@pytest.mark.slow
def test_a_curve_becomes_a_movie_and_a_strip(tmp_path):
  curve = tmp_path / 'curve.txt'
  np.savetxt(curve, [[-1, 0], [0, 1], [1, 1]])
  words = [f'--dataset=density:{curve}', *SMALL]
  done = movie(tmp_path / 'out', *words)
  assert done.returncode == 0, done.stderr
  with PIL.Image.open(tmp_path / 'out' / 'movie.gif') as gif:
    assert gif.n_frames == 5 and gif.width == 780
  assert (tmp_path / 'out' / 'strip.png').is_file()
  run = tmp_path / 'out' / 'minimax'  # alone: one column
  done = movie(run)
  assert done.returncode == 0, done.stderr
  with PIL.Image.open(run / 'movie.gif') as gif:
    assert gif.width == 390


@pytest.mark.slow
@pytest.mark.parametrize(
  ('words', 'told'),
  [
    (['--dataset=ring'], '--dataset=ring: name a density in one dimension'),
    (['--objective=minimax'], 'use --objectives=minimax,non_saturating'),
    (['--objectives=minmax'], '--objective=minmax: did you mean minimax'),
    (['--frames=1'], '--frames=1: use 2 or more'),
    (['--stepz=1'], 'stepz'),
  ],
)
def test_what_it_cannot_draw_is_refused_before_training(tmp_path, words, told):
  done = movie(tmp_path / 'out', *words)
  assert done.returncode and told in done.stderr
  assert not (tmp_path / 'out').exists()
