"""Compiles a step of every architecture for a card and writes the table.

    python experiments/gpu/compile_all.py --out=experiments/gpu/raw

No card is needed, but `jax[cuda12]` (or `jax[tpu]` for a TPU slice). What has
been compiled is not compiled again; `--table` prints the table of that. A step
whose batch does not split over the devices is left out.
"""

import argparse
import json
import pathlib
import subprocess
import sys

DIGITS = '--dataset=digits --image_size={} --channels={}'.format
RGB = DIGITS(32, 3)
ROWS = {  # of the card, by name: flags of `gan_jax.train`
  'mlp 128-128, batch 256': '--dataset=ring --network=mlp --batch_size=256',
  'goodfellow2014 28x28, batch 100': DIGITS(28, 1)
  + ' --network=goodfellow2014 --batch_size=100',
  'dcgan 32x32x3, batch 64': RGB + ' --network=dcgan --batch_size=64',
  'dcgan, bfloat16, batch 512': RGB
  + ' --network=dcgan --batch_size=512 --precision=bfloat16',
  'infogan 28x28, batch 64': DIGITS(28, 1)
  + ' --network=infogan --batch_size=64',
  'sndcgan 32x32x3, batch 64, hinge': RGB
  + ' --network=sndcgan --batch_size=64 --objective=hinge',
  'resnet width 128, batch 64, hinge': RGB
  + ' --network=resnet --width=128 --batch_size=64 --objective=hinge',
  'r3gan width 64, batch 64, R1 and R2': RGB
  + ' --network=r3gan --width=64 --batch_size=64 --objective=relativistic'
  ' --regularizer=r1:5,r2:5',
  'pacgan, packs of 2, batch 64': '--dataset=grid --network=pacgan --packing=2',
  'unrolled, 5 steps, batch 64': '--dataset=ring --network=unrolled'
  ' --schedule=unrolled',
  'dirac, batch 64': '--dataset=gaussian_1d --network=dirac',
}


def place_of(name: str, out: pathlib.Path) -> pathlib.Path:
  """The JSON of a row."""
  return out / f'{name.replace(",", "").replace(" ", "_")}.json'


def compile_row(name: str, flags: str, target: str, out: pathlib.Path) -> None:
  """Runs the command, unless its JSON is there."""
  place = place_of(name, out)
  if place.exists():
    return
  command = [sys.executable, '-m', 'gan_jax.train', *flags.split()]
  command += [f'--compile_for={target}', f'--out={place}']
  print(' '.join(command[1:]), flush=True)
  subprocess.run(command, stdout=subprocess.DEVNULL)


def table(out: pathlib.Path) -> str:
  """The rows that have been compiled."""
  lines = [
    '| step | kernels | of these convolutions, products, reductions, copies |'
    ' collectives | GFLOP | MB moved | temporaries | needed of the card |'
    ' estimate | launches |',
    '| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |',
  ]
  for name in ROWS:
    place = place_of(name, out)
    if place.exists():
      lines.append(row(name, json.loads(place.read_text())))
  return '\n'.join(lines)


def row(name: str, facts: dict) -> str:
  """One line of the table."""
  step, memory, kinds = facts['step'], facts['memory'], facts['kinds']
  counts = [
    kinds[kind]['kernels']
    for kind in (
      'convolution',
      'matrix product',
      'reduction',
      'copy and transpose',
    )
  ]
  found = ', '.join(
    f'{n["count"]} {what} ({n["bytes"] / 1e6:.1f} MB)'
    for what, n in facts['collectives'].items()
  )
  launches = step['launch_seconds'] / step['seconds']
  cells = [
    name,
    f'{step["kernels"]:,}',
    ', '.join(map(str, counts)),
    found,
    f'{step["flops"] / 1e9:.2f}',
    f'{step["bytes"] / 1e6:,.1f}',
    f'{memory["temporaries"] / 1e6:,.1f} MB',
    f'{memory["needed"] / memory["usable"]:.2%}',
    f'{step["seconds"] * 1e3:.3f} ms'
    + (f'; {step["cycles"]:,} cycles' if step['cycles'] else ''),
    f'{launches:.0%}',
  ]
  return f'| {" | ".join(cells)} |'


def main() -> None:
  """Compiles what is not compiled, prints the table."""
  parser = argparse.ArgumentParser()
  parser.add_argument('--target', default='h100')
  parser.add_argument('--out', type=pathlib.Path, required=True)
  parser.add_argument('--table', action='store_true')
  given = parser.parse_args()
  for name, flags in ROWS.items():
    if not given.table:
      compile_row(name, flags, given.target, given.out)
  print(table(given.out))


if __name__ == '__main__':
  main()
