"""Makes the figures of the pages, and what the tutorial says that it prints.

python docs/figures/make.py --digits=runs/digits
python docs/figures/make.py --ablation=runs/ring --name=ablation_ring
  (with chromium: the top of its report on a desktop and on a phone)
python docs/figures/make.py --trace=runs/digits   # made with --profile
python docs/figures/make.py --tutorial   # runs docs/tutorial.md, prints all
"""

import argparse
import collections
import contextlib
import gzip
import io
import json
import os
import pathlib
import re
import subprocess
import tempfile

import matplotlib.pyplot as plt
import numpy as np
import PIL.Image

import gan_jax as gj
from gan_jax.figures import images

HERE = pathlib.Path(__file__).parent
TUTORIAL = HERE.parent / 'tutorial.md'
CHINESE = HERE.parent / 'tutorial.zh.md'
FENCED = re.compile(r'^```.*?^```\n', re.DOTALL | re.MULTILINE)


def digits(workdir: str) -> bytes:
  """Generated digits beside real ones."""
  generated = images.to_uint8(gj.open(workdir).sample(64))
  real = gj.data.load('digits')
  assert isinstance(real, gj.data.SampleSet)
  sheets = [
    images.enlarged(images.grid(x)) for x in (generated, real.array()[:64])
  ]
  gap = np.full((sheets[0].shape[0], 40, 1), 255, np.uint8)
  return images.png(np.concatenate([sheets[0], gap, sheets[1]], axis=1))


def page(
  report: pathlib.Path, width: int, height: int, out: pathlib.Path
) -> None:
  """The top of a page as a browser shows it, in few colours."""
  with tempfile.TemporaryDirectory() as folder:
    shot = pathlib.Path(folder, 'shot.png')
    words = ['chromium', '--headless', '--no-sandbox', '--hide-scrollbars']
    words += [f'--user-data-dir={folder}/user', f'--screenshot={shot}']
    words += [f'--window-size={width},{height}', report.resolve().as_uri()]
    subprocess.run(words, check=True, capture_output=True)
    with PIL.Image.open(shot) as picture:
      few = picture.convert('RGB').quantize(
        128, PIL.Image.Quantize.MAXCOVERAGE, dither=PIL.Image.Dither.NONE
      )
  few.save(out, optimize=True)


_KINDS = {
  'convolutions and products': ('ynn', 'dot', 'conv'),
  'copies': ('copy', 'transpose', 'concatenate', 'bitcast'),
  'all else that is compiled': ('',),
}


def _kind(name: str) -> str:
  return next(k for k, words in _KINDS.items() if name.startswith(words))


def trace(workdir: str) -> bytes:
  """A traced dispatch: the threads' boxes, and where their time went."""
  (path,) = pathlib.Path(workdir, 'profile').rglob('perfetto*.gz')
  events = json.loads(gzip.decompress(path.read_bytes()))['traceEvents']
  boxes = [e for e in events if e.get('ph') == 'X']
  threads = {
    e['tid']: e['args']['name']
    for e in events
    if e.get('name') == 'thread_name'
  }
  skipped = ('$', 'Thunk', 'while', 'Threadpool', 'call')
  compiled = [
    e
    for e in boxes
    if threads.get(e['tid'], '').startswith('tf_XLA')
    and not e['name'].startswith(skipped)
  ]
  python = [
    e
    for e in boxes
    if 'advance' in e['name'] or e['name'].startswith('np.asarray')
  ]
  start = min(e['ts'] for e in python)
  end = max(e['ts'] + e['dur'] for e in (*python, *compiled))
  figure, (top, below) = plt.subplots(
    2, 1, figsize=(8, 4.2), height_ratios=(3, 2), layout='constrained'
  )
  colours = dict(zip(_KINDS, ('#3b6fb6', '#d98c3a', '#9aa3ad'), strict=True))
  rows = ['train.py: advance', 'train.py: waits', 'tf_XLA: compiled']
  for e in python:
    row = 1 if e['name'].startswith('np.') else 0
    span = ((e['ts'] - start) / 1e3, e['dur'] / 1e3)
    top.broken_barh([span], (row - 0.4, 0.8), color='#c9d3de')
  total = collections.Counter[str]()
  for e in compiled:
    kind = _kind(e['name'])
    total[kind] += e['dur'] / 1e3
    span = ((e['ts'] - start) / 1e3, e['dur'] / 1e3)
    top.broken_barh([span], (1.6, 0.8), color=colours[kind])
  top.set(yticks=range(3), yticklabels=rows, xlabel='milliseconds')
  top.set_xlim(0, (end - start) / 1e3)
  top.invert_yaxis()
  below.barh(
    [*_KINDS], [total[k] for k in _KINDS], color=[colours[k] for k in _KINDS]
  )
  below.set(xlabel='milliseconds of the dispatch')
  below.invert_yaxis()
  out = io.BytesIO()
  figure.savefig(out, dpi=110, metadata={'Software': None})
  plt.close(figure)
  return out.getvalue()


def tutorial() -> str:
  """The tutorial with what its blocks print; leaves its figure beside this."""
  text = TUTORIAL.read_text(encoding='utf-8')
  before = os.getcwd()
  space: dict[str, object] = {}

  def run(match: re.Match[str]) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
      exec(match['code'], space)
    if match['kind'] is None:
      return match[0]
    said = [line.rstrip() for line in printed.getvalue().splitlines()]
    code = f'```python\n{match["code"]}```\n\n'
    return f'{code}```{match["kind"]}\n' + '\n'.join([*said, '```\n'])

  with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    try:
      text = re.sub(
        r'^```python\n(?P<code>.*?)^```\n'
        r'(?:\n```(?P<kind>text[^\n]*)\n.*?^```\n)?',
        run,
        text,
        flags=re.DOTALL | re.MULTILINE,
      )
      for path in pathlib.Path(folder).glob('*.png'):
        (HERE / path.name).write_bytes(path.read_bytes())
    finally:
      os.chdir(before)
  return text


def with_blocks_of(text: str, source: str) -> str:
  """A translation with the blocks of its source, in their order."""
  blocks = iter(FENCED.findall(source))
  return FENCED.sub(lambda match: next(blocks), text)


def main() -> None:
  """Writes the figures beside this file."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--digits', help='workdir of a run on digits')
  parser.add_argument(
    '--tutorial', action='store_true', help='run the page, write it anew'
  )
  parser.add_argument('--trace', help='workdir of a run with --profile')
  parser.add_argument('--ablation', help='workdir of one with a report')
  parser.add_argument('--name', help='of its two pictures, without the ending')
  args = parser.parse_args()
  if args.digits:
    (HERE / 'digits.png').write_bytes(digits(args.digits))
  if args.trace:
    (HERE / 'trace.png').write_bytes(trace(args.trace))
  if args.ablation:
    report = pathlib.Path(args.ablation, 'report.html')
    page(report, 1280, 1480, HERE / f'{args.name}.png')
    page(report, 390, 1480, HERE / f'{args.name}_phone.png')
  if args.tutorial:
    text = tutorial()
    TUTORIAL.write_text(text, encoding='utf-8')
    chinese = CHINESE.read_text(encoding='utf-8')
    CHINESE.write_text(with_blocks_of(chinese, text), encoding='utf-8')


if __name__ == '__main__':
  main()
