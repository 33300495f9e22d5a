"""How often a 95% interval of gan_jax.ablation.statistics holds the truth.

On synthetic scores of which the truth is known, at the numbers of seeds that
ablations have; the intervals that were not chosen beside those that were.
Writes `results.json` and prints its tables.

  python experiments/statistics/coverage/measure.py
"""

import json
import math
import pathlib
import platform
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy import stats

from gan_jax.ablation import statistics

HERE = pathlib.Path(__file__).parent
SEED = 0
TRIALS, FEW = 10_000, 2_000  # FEW for SciPy's bootstraps, which are slow
SEEDS = (4, 8, 16, 32)
CELLS = 18

Batch = NDArray[np.float64]
Ends = tuple[Batch, Batch]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Batch]


def lognormal(sigma: float) -> Draw:
  """Skewed as a distance near 0 is: .78 at sigma = .25, 1.75 at .5."""
  return lambda rng, shape: np.exp(sigma * rng.normal(size=shape))


def outliers(rng: np.random.Generator, shape: tuple[int, ...]) -> Batch:
  """A tenth of the runs is 10 standard deviations worse."""
  return rng.normal(size=shape) + 10 * (rng.random(shape) < 0.1)


SCORES: dict[str, tuple[Draw, float]] = {
  'normal': (lambda rng, shape: rng.normal(size=shape), 0.0),
  'uniform': (lambda rng, shape: rng.random(shape), 0.5),
  'Student, 5 degrees': (lambda rng, shape: rng.standard_t(5, shape), 0.0),
  'lognormal .25': (lognormal(0.25), math.exp(0.25**2 / 2)),
  'lognormal .5': (lognormal(0.5), math.exp(0.5**2 / 2)),
  'modes found: binomial(8, .9)': (
    lambda rng, shape: rng.binomial(8, 0.9, shape).astype(float),
    7.2,
  ),
  'stress: lognormal 1': (lognormal(1.0), math.exp(0.5)),
  'stress: 10% outliers': (outliers, 1.0),
}


def ours(x: Batch) -> Ends:
  """`mean_interval`, score after score."""
  low, high = np.array([statistics.mean_interval(row) for row in x]).T
  return low, high


def student(x: Batch) -> Ends:
  """The textbook's t interval of a mean."""
  n = x.shape[1]
  half = stats.t.ppf(0.975, n - 1) * x.std(1, ddof=1) / math.sqrt(n)
  return x.mean(1) - half, x.mean(1) + half


def scipy_bootstrap(method: str) -> Callable[[Batch], Ends]:
  """scipy.stats.bootstrap of a mean."""

  def ends(x: Batch) -> Ends:
    lows, highs = [], []
    for part in np.array_split(x, max(1, len(x) // 250)):
      found = stats.bootstrap(
        (part,), np.mean, axis=-1, method=method, n_resamples=1999,
        random_state=np.random.default_rng(SEED),
      ).confidence_interval  # fmt: skip
      lows.append(found.low)
      highs.append(found.high)
    return np.concatenate(lows), np.concatenate(highs)

  return ends


METHODS: dict[str, tuple[Callable[[Batch], Ends], int]] = {
  'studentised bootstrap (ours)': (ours, TRIALS),
  'Student': (student, TRIALS),
  'percentile bootstrap': (scipy_bootstrap('percentile'), FEW),
  'BCa bootstrap': (scipy_bootstrap('BCa'), FEW),
}


def told(truth: float, ends: Ends) -> dict[str, float]:
  """Coverage, and how wide the intervals are."""
  low, high = ends
  known = np.isfinite(low) & np.isfinite(high)  # BCa fails on equal scores
  hit = ((low <= truth) & (truth <= high))[known]
  return {
    'coverage': float(hit.mean()),
    'standard_error': float(hit.std() / math.sqrt(len(hit))),
    'mean_width': float((high - low)[known].mean()),
    'trials': len(hit),
    'undefined': int((~known).sum()),
  }


def means() -> Iterator[dict[str, Any]]:
  """Intervals of a mean over seeds."""
  for n in SEEDS:
    for name, (draw, truth) in SCORES.items():
      for method, (interval, trials) in METHODS.items():
        if n not in (8, 16) and trials == FEW:
          continue
        x = draw(np.random.default_rng([SEED, n]), (trials, n))
        with np.errstate(all='ignore'):
          found = told(truth, interval(x))
        yield {'seeds': n, 'scores': name, 'method': method, **found}


def paired() -> Iterator[dict[str, Any]]:
  """Intervals of a mean difference; a seed may move both sides together."""
  sides = {
    'normal, equal spread': lambda u, v: (u, v),
    'normal, spread 1 and 3': lambda u, v: (u, 3 * v),
    'lognormal .5 both': lambda u, v: (np.exp(u / 2), np.exp(v / 2)),
    'lognormal .5 and .25': lambda u, v: (np.exp(u / 2), np.exp(v / 4)),
  }
  truths = {'lognormal .5 and .25': math.exp(1 / 8) - math.exp(1 / 32)}
  for n in (8, 16):
    for shared in (0.0, 0.6):
      for name, make in sides.items():
        rng = np.random.default_rng([SEED, n])
        u, w = rng.normal(size=(2, TRIALS, n))
        a, b = make(u, shared * u + math.sqrt(1 - shared**2) * w)
        truth = truths.get(name, 0.0)
        found = [
          statistics.paired_difference(x, y).interval
          for x, y in zip(a, b, strict=True)
        ]
        low, high = np.array(found).T
        yield {
          'seeds': n,
          'correlation': shared,
          'scores': name,
          **told(truth, (low, high)),
          'bootstrap_coverage': told(truth, ours(a - b))['coverage'],
        }


def percentile_of_order(a: Batch, b: Batch, rng: Any) -> tuple[float, float]:
  """Percentile bootstrap of the probability of improvement."""
  n = len(a)
  wins = (a[:, None] < b).astype(float)
  i, j = rng.multinomial(n, np.full(n, 1 / n), (2, 999))
  low, high = np.quantile(((i @ wins) * j).sum(1) / n**2, [0.025, 0.975])
  return float(low), float(high)


def improvements() -> Iterator[dict[str, Any]]:
  """Intervals of P(a < b), normal scores apart by what gives each P."""
  for n in (8, 16):
    for truth in (0.5, 0.75, 0.9, 0.97):
      for spread, shared in ((1, 0.0), (1, 0.6), (3, 0.0)):
        rng = np.random.default_rng([SEED, n])
        a, w = rng.normal(size=(2, FEW, n))
        b = spread * (shared * a + math.sqrt(1 - shared**2) * w)
        b = b + stats.norm.ppf(truth) * math.hypot(1, spread)
        pairs = list(zip(a, b, strict=True))
        found = np.array(
          [
            statistics.probability_of_improvement(x, y, 'lower').interval
            for x, y in pairs
          ]
        )
        plain = np.array([percentile_of_order(x, y, rng) for x, y in pairs])
        yield {
          'seeds': n,
          'truth': truth,
          'spread': spread,
          'correlation': shared,
          **told(truth, (found[:, 0], found[:, 1])),
          'percentile_bootstrap_coverage': told(
            truth, (plain[:, 0], plain[:, 1])
          )['coverage'],
        }


def rates() -> Iterator[dict[str, Any]]:
  """Exact coverage of a rate's interval, over evenly spread true rates."""
  p = np.arange(0.01, 1.0, 0.01)
  for n in SEEDS:
    k = np.arange(n + 1)
    weight = stats.binom.pmf(k[:, None], n, p)
    for method in ('wilson', 'exact'):
      if method == 'wilson':
        ends = np.array([statistics.rate(int(i), n).interval for i in k])
      else:
        ends = np.array(
          [stats.binomtest(int(i), n).proportion_ci(0.95, 'exact') for i in k]
        )
      inside = (ends[:, :1] <= p) & (p <= ends[:, 1:])
      coverage = (weight * inside).sum(0)
      yield {
        'seeds': n,
        'method': {'exact': 'Clopper-Pearson', 'wilson': 'Wilson (ours)'}[
          method
        ],
        'mean_coverage': float(coverage.mean()),
        'least_coverage': float(coverage.min()),
      }


def _p_values(x: Batch) -> Batch:
  """Student's paired p of every two cells: (cells, seeds) to a matrix."""
  apart = x[:, None] - x[None]
  error = apart.std(-1, ddof=1) / math.sqrt(x.shape[1])
  t = apart.mean(-1) / np.where(error > 0, error, 1)
  p: Batch = 2 * stats.t.sf(abs(t), x.shape[1] - 1)
  return p


def families() -> Iterator[dict[str, Any]]:
  """How often the best of equal cells is said to beat one, at level .05."""
  above = np.triu_indices(CELLS, 1)
  for n in (8, 16):
    for name in ('normal', 'lognormal .5'):
      rng = np.random.default_rng([SEED, n])
      every = rest = 0
      for _ in range(FEW):
        x = SCORES[name][0](rng, (CELLS, n))
        p = _p_values(x)
        best = int(x.mean(1).argmin())
        others = np.delete(np.arange(CELLS), best)
        pairs = np.ones((CELLS, CELLS))
        pairs[above] = statistics.holm([float(q) for q in p[above]])
        adjusted = np.minimum(pairs, pairs.T)[best, others]
        every += bool((adjusted < 0.05).any())
        rest += min(statistics.holm([float(q) for q in p[best, others]])) < 0.05
      yield {
        'cells': CELLS,
        'seeds': n,
        'scores': name,
        'holm_over_all_pairs': every / FEW,
        'holm_over_pairs_with_the_best': rest / FEW,
        'trials': FEW,
      }


def main() -> None:
  """Measures everything and writes it down."""
  found: dict[str, Any] = {
    'seed': SEED,
    'python': platform.python_version(),
    'numpy': np.__version__,
    'scipy': scipy.__version__,
  }
  start = time.process_time()
  parts = (means, paired, improvements, rates, families)
  for part in parts:
    found[part.__name__] = list(part())
    for row in found[part.__name__]:
      print(
        part.__name__,
        *(f'{v:.3f}' if isinstance(v, float) else v for v in row.values()),
        sep=' | ',
        flush=True,
      )
  found['cpu_sec'] = round(time.process_time() - start, 1)
  text = json.dumps(found, indent=1) + '\n'
  (HERE / 'results.json').write_text(text, encoding='utf-8')


if __name__ == '__main__':
  main()
