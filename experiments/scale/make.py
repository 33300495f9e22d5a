"""Synthetic sets of the shapes of CelebA and FFHQ: noise that compresses alike.

`python experiments/scale/make.py --folder=DIR --count=20000 --kind=jpeg` writes
JPEGs of 178x218 in 100 folders, `--kind=png` PNGs of 1024x1024 in one. What is
there is left: the same call goes on. Nothing of it is committed.
"""

import argparse
import multiprocessing
import pathlib

import numpy as np
import PIL.Image

SIZES = {'jpeg': (178, 218), 'png': (1024, 1024)}


def draw(number: int, size: tuple[int, int]) -> PIL.Image.Image:
  """Smooth noise with a little grain: an image of this number alone."""
  stream = np.random.default_rng(number)
  image = None
  for cells, weight in ((3, 0.6), (8, 0.3), (24, 0.1)):
    noise = stream.integers(0, 256, (cells, cells, 3), np.uint8)
    layer = PIL.Image.fromarray(noise).resize(
      size, PIL.Image.Resampling.BICUBIC
    )
    pixels = np.asarray(layer, np.float32) * weight
    image = pixels if image is None else image + pixels
  grain = stream.normal(0, 2, (size[1], size[0], 1))
  return PIL.Image.fromarray(np.clip(image + grain, 0, 255).astype(np.uint8))


def save(task: tuple[str, int, str]) -> None:
  """Writes one image, unless it is there."""
  path, number, kind = pathlib.Path(task[0]), task[1], task[2]
  if path.exists():
    return
  image = draw(number, SIZES[kind])
  partial = path.with_suffix('.partial')
  how = {'quality': 75} if kind == 'jpeg' else {'compress_level': 1}
  image.save(partial, 'JPEG' if kind == 'jpeg' else 'PNG', **how)
  partial.rename(path)


def main() -> None:
  """Makes a set as the arguments say."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--folder', type=pathlib.Path, required=True)
  parser.add_argument('--count', type=int, default=20_000)
  parser.add_argument('--kind', choices=SIZES, default='jpeg')
  parser.add_argument('--folders', type=int, default=100)
  parser.add_argument('--processes', type=int, default=2)
  args = parser.parse_args()
  suffix = 'jpg' if args.kind == 'jpeg' else 'png'
  folders = args.folders if args.kind == 'jpeg' else 1
  tasks = []
  for i in range(args.count):
    place = args.folder / (f'{i % folders:03d}' if folders > 1 else '')
    place.mkdir(parents=True, exist_ok=True)
    tasks.append((str(place / f'{i:07d}.{suffix}'), i, args.kind))
  with multiprocessing.Pool(args.processes) as pool:
    for _ in pool.imap_unordered(save, tasks, 64):
      pass


if __name__ == '__main__':
  main()
