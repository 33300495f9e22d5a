"""A thousand classes, and twenty thousand images in one folder.

`python experiments/scale/classes.py --out=RESULTS.json` makes PNGs of 16x16, 20
in each of 1,000 folders, and the same 20,000 in one; trains a small MLP with
classes on the former and one without on the latter, samples (a grid, and one
class), evaluates and reports. Seconds are CPU seconds, user and system, of each
command and its workers.
"""

import argparse
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import PIL.Image
from record import recorder

CLASSES, EACH = 1000, 20


def cpu() -> float:
  """CPU seconds of the processes that have been waited for."""
  used = resource.getrusage(resource.RUSAGE_CHILDREN)
  return used.ru_utime + used.ru_stime


def main() -> None:
  """Runs the commands one after another."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--out', type=pathlib.Path, required=True)
  args = parser.parse_args()
  note = recorder(args.out)

  with tempfile.TemporaryDirectory() as scratch:
    place = pathlib.Path(scratch)
    (place / 'flat').mkdir()
    for i in range(CLASSES * EACH):
      pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), np.uint8)
      path = place / 'flat' / f'{i:05d}.png'
      PIL.Image.fromarray(pixels).save(path)
      nested = place / 'nested' / f'{i % CLASSES:03d}'
      nested.mkdir(parents=True, exist_ok=True)
      shutil.copy(path, nested)
    root = f'--data_dir={place / "root"}'

    def run(name: str, command: str, *words: str) -> None:
      before = cpu()
      line = [sys.executable, '-m', f'gan_jax.{command}', *words]
      subprocess.run(line, check=True)
      note(name, round(cpu() - before, 1))

    for kind in ('nested', 'flat'):
      workdir = f'--workdir={place / f"run-{kind}"}'
      how = [f'--dataset=folder:{place / kind}', root, '--network=mlp']
      how += ['--width=64', '--batch_size=64', '--steps=200', '--report=false']
      if kind == 'nested':
        how.append('--conditioning=projection')
      run(f'{kind}: trained, the first start', 'train', workdir, *how)
      grid, one = place / f'{kind}.png', place / f'{kind}.npz'
      run(f'{kind}: a grid', 'sample', workdir, '--num=64', f'--out={grid}')
      note(f'{kind}: pixels of the grid', PIL.Image.open(grid).size)
      if kind == 'nested':
        words = '--num=256', '--label=999', f'--out={one}'
        run(f'{kind}: one class', 'sample', workdir, *words)
      words = '--metrics=fid', '--features=pixels', '--samples=2000'
      run(f'{kind}: evaluated', 'evaluate', workdir, root, *words)
      run(f'{kind}: reported', 'report', workdir)
      report = place / f'run-{kind}' / 'report.html'
      note(
        f'{kind}: MiB of the report', round(report.stat().st_size / 2**20, 2)
      )


if __name__ == '__main__':
  main()
