"""Small ablations on `ring`, one of them trained by arithmetic, for tests."""

import csv
import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

import gan_jax as gj
from gan_jax.ablation import runner
from gan_jax.ablation.plan import AblationOptions, make_plan
from helpers import small

TOY = small.ring(eval_samples=64, metrics='modes', devices=2)
# Two programs of two cells.
GRID = ('objective=minimax,hinge', 'lr_g+lr_d=1e-3,1e-2')


class SoftHinge(gj.Objective):
  """An objective of one's own, with a hyper-parameter."""

  temperature: float = 1.0

  def d_loss(self, real, fake):
    """Softened hinge."""
    t = self.temperature
    real = jnp.mean(jax.nn.softplus((1 - real) / t))
    return real + jnp.mean(jax.nn.softplus((1 + fake) / t))

  def g_loss(self, real, fake):
    """That of the hinge."""
    return -jnp.mean(fake)


def options(path, *vary, seeds=2, **changes):
  """The options of a small ablation, as `gan_jax.ablate` has them."""
  names = [f.name for f in dataclasses.fields(AblationOptions)]
  own = {n: changes.pop(n) for n in names if n in changes}
  base = dataclasses.replace(TOY, workdir=str(path), **changes)
  return AblationOptions(base, vary or ('lr_g=1e-3,1e-2',), seeds, **own)


def plan(path, *vary, **changes):
  """Its plan."""
  return make_plan(options(path, *vary, **changes))


def rows(path, name='results.csv'):
  """The lines of results.csv, or of another table."""
  with open(pathlib.Path(path) / name, newline='') as file:
    return list(csv.DictReader(file))


class FakeRun:
  """Members whose training is arithmetic: a run without a compiled program.

  Those whose learning rate exceeds 1 diverge at step 3.
  """

  layout, compile_sec, train_sec, cpu_sec = 'vmap', 0.5, 0.0, 0.0

  def __init__(self, plan, number, folder):
    self.members, self._folder = plan.programs[number], folder
    self._config = plan.spec_of(number).config
    folder.mkdir(parents=True, exist_ok=True)
    self._path = folder / 'step.json'
    found = self._path.is_file()
    self.step = json.loads(self._path.read_text()) if found else 0
    self.closed = False

  def calibrate(self, seconds):
    return 0.1 * len(self.members)

  def run(self, listener, moved=None, reached=None):
    listener.raise_at_once = False
    reached()
    while self.step < self._config.steps:
      if listener.received:
        self.save()
        return 'saved'
      self.step += 1
      moved(self.step, 0.1)
      if self.step % self._config.checkpoint_every == 0:
        self.save()
      reached()
    self.save()
    return 'done'

  def save(self):
    self._path.write_text(json.dumps(self.step))

  def outcomes(self):
    return [
      ('diverged', 3) if m.config.lr_g > 1 else ('done', self.step)
      for m in self.members
    ]

  def generators(self):
    return [
      ({'w': np.float32([m.config.lr_g, m.cell, m.seed, self.step])}, {})
      for m in self.members
    ]

  def write_samples(self):
    (self._folder / 'samples').mkdir(exist_ok=True)

  def close(self):
    self.closed = True


class FakeScorer:
  """Scores that are sums over parameters."""

  def __init__(self, plan, protocol='one'):
    self.scored, self._protocol = [], protocol

  def check_cells(self):
    pass

  def score_directions(self):
    return {'modes': 'higher', 'reverse_kl': 'lower'}

  def protocol(self):
    return {'samples': 64, 'name': self._protocol}

  def protocol_hash(self, cell):
    return self._protocol

  def score(self, cell, params, stats):
    self.scored.append(cell)
    total = float(params['w'].sum())
    scores = {'modes': total, 'reverse_kl': 1 / total}
    return {'scores': scores, 'evaluation_std': {}}


def run_fake(plan, make_run=FakeRun, make_scorer=FakeScorer, **how):
  """The ablation of a plan, by arithmetic; its exit code."""
  return runner.ablate(plan, make_run=make_run, make_scorer=make_scorer, **how)
