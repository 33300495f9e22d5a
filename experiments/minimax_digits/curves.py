"""Learning curves of the ablation: `logs.csv`, and `curves.png` drawn from it.

python experiments/minimax_digits/curves.py --workdir=runs/minimax_digits
"""

import argparse
import csv
import pathlib

import numpy as np
from matplotlib import pyplot as plt

from gan_jax.ablation import figures
from gan_jax.ablation.report import RunLogs
from gan_jax.ablation.results import read_results

HERE = pathlib.Path(__file__).parent
PANELS = {
  'g/grad_norm': "Norm of G's gradient",
  'd/prob_fake': "D's probability of generated samples",
}
LABELS = {'minimax': 'min-max', 'non_saturating': 'non-saturating'}
COLOURS = dict(zip(LABELS, figures.COLOURS, strict=False))


def write_logs(workdir: pathlib.Path, path: pathlib.Path) -> None:
  """A row for each run and logged step, to four digits."""
  results, logs = read_results(workdir), RunLogs(workdir)
  names = sorted(PANELS)
  with open(path, 'w', encoding='utf-8', newline='') as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(['objective', 'seed', 'step', *names])
    for cell in results.cells:
      tables = [logs.curves(cell, name) for name in names]
      for i, seed in enumerate(cell.seeds):
        for at, step in enumerate(tables[0][0]):
          values = [f'{table[at, i]:.4g}' for _, table in tables]
          writer.writerow([cell.values['objective'], seed, step, *values])


def draw(path: pathlib.Path, picture: pathlib.Path) -> None:
  """Medians over the seeds, and bands between the quartiles."""
  with open(path, encoding='utf-8', newline='') as file:
    rows = list(csv.DictReader(file))
  with plt.rc_context(figures.STYLE):
    figure, axes = plt.subplots(
      1, 2, figsize=(8, 2.8), dpi=110, layout='constrained'
    )
    for place, (name, title) in zip(axes, PANELS.items(), strict=True):
      place.set_title(title, loc='left', fontweight='bold')
      place.set_xlabel('updates of G')
      for objective, colour in COLOURS.items():
        own = [row for row in rows if row['objective'] == objective]
        steps = np.array(sorted({int(row['step']) for row in own}))
        x = [float(row[name]) for row in own]  # seed by seed
        low, middle, high = figures.quartiles(np.reshape(x, (-1, len(steps))).T)
        place.fill_between(steps, low, high, color=colour, alpha=0.2, lw=0)
        place.plot(steps, middle, color=colour, label=LABELS[objective])
    axes[0].set_yscale('log')
    axes[1].axhline(0.5, color=figures.LINE, linestyle='--', linewidth=0.8)
    axes[0].legend(frameon=False)
    figure.savefig(picture)
  plt.close(figure)


def main() -> None:
  """Writes the logs of an ablation, if one is named, and draws them."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--workdir', type=pathlib.Path, help='of the ablation')
  args = parser.parse_args()
  if args.workdir is not None:
    write_logs(args.workdir, HERE / 'logs.csv')
  draw(HERE / 'logs.csv', HERE / 'curves.png')


if __name__ == '__main__':
  main()
