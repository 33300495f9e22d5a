"""What reaches G when D is well ahead, under both objectives?

G stands still while a D of its own, from scratch, makes more and more updates
against it. On the way the gradient that G would be given is taken twice, for
min-max and for non-saturating, from the same noise and the same D. Writes
`results.json` and `figure.svg`.

  python experiments/saturation/run.py [--seeds=8] [--d_updates=2048]
  python experiments/saturation/run.py --draw    # the figure and table alone
"""

import argparse
import json
import pathlib
import platform
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import scipy.stats
from matplotlib import pyplot as plt

from gan_jax import data, networks
from gan_jax.figures import page
from gan_jax.game.game import Batch, Game
from gan_jax.game.objectives import OBJECTIVES
from gan_jax.game.optimizers import Adam
from gan_jax.game.trainer import Trainer

HERE = pathlib.Path(__file__).parent
PAIR = {name: OBJECTIVES[name] for name in ('minimax', 'non_saturating')}
EPOCH = 1797 / 64  # of digits, in batches


class Setting(NamedTuple):
  """A game, and how long G was trained before it stood still."""

  dataset: str
  network: str
  width: int
  lr: float
  batch: int
  look: int  # samples that a gradient is taken from
  updates: int


SETTINGS = {
  'gaussian_1d, untrained G': Setting(
    'gaussian_1d', 'mlp', 128, 1e-3, 256, 2048, 0
  ),
  'ring, untrained G': Setting('ring', 'mlp', 128, 1e-3, 256, 2048, 0),
  **{
    f'digits, G of {epochs} epoch{"s" * (epochs > 1)}': Setting(
      'digits', 'dcgan', 16, 2e-4, 64, 256, round(epochs * EPOCH)
    )
    for epochs in (1, 10, 25)
  },
}


def source(dataset: data.Dataset) -> Callable[[Any, int], Any]:
  """`(key, n) -> n` real samples as D sees them."""
  if isinstance(dataset, data.Density):
    return dataset.sample
  images = jnp.float32(dataset.array()) / 127.5 - 1

  def draw(key: Any, n: int) -> Any:
    return images[jax.random.randint(key, (n,), 0, len(images))]

  return draw


class Race:
  """One setting, compiled once: D's updates, and looks at G's gradient."""

  def __init__(self, setting: Setting) -> None:
    """Loads the data and builds both networks."""
    self.setting = setting
    dataset = data.load(setting.dataset)
    nets = networks.build(
      setting.network,
      dataset.shape,
      bounded=dataset.bounded,
      width=setting.width,
    )
    adam = Adam(setting.lr)
    self.trainers = {
      name: Trainer(Game(nets, objective), adam, adam, ema=None)
      for name, objective in PAIR.items()
    }
    self.trainer = self.trainers['non_saturating']
    self.draw = source(dataset)
    self.train = jax.jit(self._train)
    self.train_d = jax.jit(self._train_d)
    self.look = jax.jit(self._look)

  def _train(self, state: Any, key: Any) -> Any:
    def one(i: Any, state: Any) -> Any:
      real = self.draw(jax.random.fold_in(key, i), self.setting.batch)
      return self.trainer.step(state, real)[0]

    return jax.lax.fori_loop(0, self.setting.updates, one, state)

  def start(self, seed: int) -> Any:
    """G after its updates, and a D that knows nothing."""
    key_init, key_train, key_d = jax.random.split(jax.random.key(seed), 3)
    state = self.trainer.init(key_init)
    if self.setting.updates:
      state = self.train(state, key_train)
    return state.replace(d=self.trainer.init(key_d).d)

  def _train_d(self, state: Any, key: Any, start: int, stop: int) -> Any:
    """D's updates from one count to another; G does not move."""
    updates = self.trainer.updates(state, self.setting.batch)

    def move(i: Any, state: Any) -> Any:
      key_real, key_rest = jax.random.split(jax.random.fold_in(key, i))
      real = Batch(self.draw(key_real, self.setting.batch))
      return updates.apply_d(state, updates.d_gradient(state, real, key_rest))

    return jax.lax.fori_loop(start, stop, move, state)

  def _look(self, state: Any, key: Any) -> dict[str, Any]:
    """D's loss, what it says, and G's gradient under both objectives."""
    key_real, key = jax.random.split(key)
    real = Batch(self.draw(key_real, self.setting.look))
    updates = self.trainer.updates(state, self.setting.look)
    logs = updates.d_gradient(state, real, key).logs
    found = {k: logs[k] for k in ('d/loss', 'd/prob_real', 'd/prob_fake')}
    gradients = []
    for name, trainer in self.trainers.items():
      updates = trainer.updates(state, self.setting.look)
      grads = updates.g_gradient(state, real, jax.random.clone(key)).grads
      # In float64's stead: scaled, so that no square is lost to 0.
      flat = jax.flatten_util.ravel_pytree(grads)[0]
      size = jnp.max(jnp.abs(flat))
      unit = flat / jnp.where(size > 0, size, 1)
      found[name] = size * jnp.linalg.norm(unit)
      gradients.append(unit / jnp.linalg.norm(unit))
    return found | {'cosine': gradients[0] @ gradients[1]}


def race(runner: Race, seed: int, d_updates: int) -> list[dict[str, float]]:
  """A row for each count of D's updates: 0, 1, 2, 4, 8, ..."""
  state = runner.start(seed)
  key_d, key_look = jax.random.split(jax.random.key(10_000 + seed))
  rows, done = [], 0
  for target in [0, *(2**i for i in range(d_updates.bit_length()))]:
    state, done = runner.train_d(state, key_d, done, target), target
    found = jax.device_get(runner.look(state, jax.random.clone(key_look)))
    rows.append(
      {'d_updates': done} | {k: float(f'{x:.6g}') for k, x in found.items()}
    )
  return rows


def measure(seeds: int, d_updates: int) -> dict[str, Any]:
  """All settings and seeds."""
  runs, cost = [], {}
  for name, setting in SETTINGS.items():
    started = time.process_time()
    runner = Race(setting)
    for seed in range(seeds):
      rows = race(runner, seed, d_updates)
      runs.append({'setting': name, 'seed': seed, 'rows': rows})
      print(f'{name}, seed {seed}: {rows[-1]}', flush=True)
    cost[name] = round(time.process_time() - started)
  return {
    'jax': jax.__version__,
    'device': jax.devices()[0].device_kind,
    'platform': f'{platform.system()} {platform.machine()}',
    'settings': {k: v._asdict() for k, v in SETTINGS.items()},
    'cpu_sec': cost,
    'runs': runs,
  }


def table_of(results: dict[str, Any], setting: str, name: str) -> Any:
  """(seeds, counts) of one number."""
  runs = [r['rows'] for r in results['runs'] if r['setting'] == setting]
  return np.array([[row[name] for row in rows] for rows in runs], np.float64)


def interval(values: Any) -> tuple[Any, Any, Any]:
  """Geometric mean over seeds, and its 95% interval (t, of the logs)."""
  logs = np.log10(values)
  mean, n = logs.mean(0), len(logs)
  half = scipy.stats.t.ppf(0.975, n - 1) * logs.std(0, ddof=1) / np.sqrt(n)
  return 10**mean, 10 ** (mean - half), 10 ** (mean + half)


def draw(results: dict[str, Any]) -> None:
  """G's gradient over D's updates, and the ratio against the algebra's."""
  with plt.rc_context(page.STYLE):
    figure, axes = plt.subplots(2, 3, figsize=(9, 5.2))
    for place, setting in zip(axes.flat, SETTINGS, strict=False):
      d_updates = table_of(results, setting, 'd_updates')[0]
      for name, colour in (
        ('minimax', '#b3261e'),
        ('non_saturating', '#1f5fbf'),
      ):
        mean, low, high = interval(table_of(results, setting, name))
        label = {'minimax': 'min-max'}.get(name, 'non-saturating')
        place.plot(d_updates, mean, color=colour, label=label)
        place.fill_between(d_updates, low, high, color=colour, alpha=0.25, lw=0)
      fake, _, _ = interval(table_of(results, setting, 'd/prob_fake'))
      place.plot(
        d_updates, fake, color='#888888', linestyle=':', label='mean D(G(z))'
      )
      place.set_xscale('symlog', linthresh=1, base=2)
      place.set_yscale('log')
      place.set_xticks([0, 1, 8, 64, d_updates[-1]])
      place.set_xticklabels(['0', '1', '8', '64', f'{d_updates[-1]:.0f}'])
      place.minorticks_off()
      place.set_title(setting, fontsize=9)
    axes[0, 0].set_ylabel("norm of G's gradient")
    axes[1, 0].set_ylabel("norm of G's gradient")
    for place in (*axes[1, :2], axes[0, 2]):
      place.set_xlabel("D's updates, G standing still")
    _ratios(axes[1, 2], results)
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc='upper center', ncols=3)
    figure.tight_layout(rect=(0, 0, 1, 0.95))
    figure.savefig(HERE / 'figure.svg')
    plt.close(figure)


def _ratios(place: Any, results: dict[str, Any]) -> None:
  """Non-saturating over min-max: measured against (1 - D) / D."""
  for i, setting in enumerate(SETTINGS):
    fake = table_of(results, setting, 'd/prob_fake').ravel()
    ratio = table_of(results, setting, 'non_saturating').ravel()
    ratio /= table_of(results, setting, 'minimax').ravel()
    place.plot((1 - fake) / fake, ratio, '.', markersize=2.5, color=f'C{i}')
  ends = np.array(place.get_xlim())
  ends = np.array([max(ends[0], 0.3), ends[1]])
  place.plot(ends, ends, color='#111111', linewidth=0.7)
  place.set(xscale='log', yscale='log')
  place.set_xlabel('(1 - D) / D, at the mean D(G(z))')
  place.set_ylabel('ratio of the norms')
  place.set_title('every seed and count, all settings', fontsize=9)


def table(results: dict[str, Any]) -> str:
  """The README's table: the first look and the last."""
  lines = [
    "| | D's updates | D's loss | D(G(z)) | min-max | non-saturating |",
    '| --- | --- | --- | --- | --- | --- |',
  ]
  for setting in SETTINGS:
    d_updates = table_of(results, setting, 'd_updates')[0]
    for at in (0, list(d_updates).index(128), -1):
      loss = table_of(results, setting, 'd/loss')[:, at].mean()
      cells = []
      for name in ('d/prob_fake', 'minimax', 'non_saturating'):
        mean, low, high = interval(table_of(results, setting, name)[:, at])
        cells.append(f'{mean:.2g} ({low:.2g} to {high:.2g})')
      lines.append(
        f'| {setting} | {d_updates[at]:.0f} | {loss:.2g} | '
        + ' | '.join(cells)
        + ' |'
      )
  return '\n'.join(lines)


def main() -> None:
  """Measures, draws, prints."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--seeds', type=int, default=8)
  parser.add_argument('--d_updates', type=int, default=2048)
  parser.add_argument('--draw', action='store_true')
  args = parser.parse_args()
  path = HERE / 'results.json'
  if not args.draw:
    results = measure(args.seeds, args.d_updates)
    path.write_text(json.dumps(results) + '\n')
  results = json.loads(path.read_text())
  draw(results)
  print(table(results))


if __name__ == '__main__':
  main()
