"""Makes the figure of the README from a workdir.

python docs/figures/make.py --digits=runs/digits
"""

import argparse
import pathlib

import numpy as np

from gan_jax import data, images, runs

HERE = pathlib.Path(__file__).parent


def digits(workdir: str) -> bytes:
  """Generated digits beside real ones."""
  run = runs.open_run(workdir)
  made = images.to_uint8(run.generate(run.latent(0, 64)))
  dataset = runs.load_dataset(run.config)
  assert isinstance(dataset, data.ImageSet)
  sheets = [
    images.enlarged(images.grid(x)) for x in (made, dataset.array()[:64])
  ]
  gap = np.full((sheets[0].shape[0], 40, 1), 255, np.uint8)
  return images.png(np.concatenate([sheets[0], gap, sheets[1]], axis=1))


def main() -> None:
  """Writes the figure beside this file."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--digits', required=True)
  args = parser.parse_args()
  (HERE / 'digits.png').write_bytes(digits(args.digits))


if __name__ == '__main__':
  main()
