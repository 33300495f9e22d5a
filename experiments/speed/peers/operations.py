"""Where a step's time is: ours, by kind of operation, of a profiler's trace.

  taskset -c 0 python experiments/speed/peers/operations.py mlp32 resnet ...

Traces some dispatches of a row's compiled program, on one core, and adds up
what each of its operations takes by itself: the least of its executions, as
other work on the core is counted in them, times how often a step runs it.
Writes `profiles/ROW.json`: shares by kind (convolutions, products, reductions,
fused kernels, copies, random numbers), and the dearest operations with what
they are and, of products and convolutions, their rate.
"""

import collections
import gzip
import json
import math
import pathlib
import re
import sys
import tempfile
from typing import Any

import jax
import numpy as np
from rows import ROWS

from gan_jax.config.resolve import make_trainer

HERE = pathlib.Path(__file__).parent
SHOWN = 24  # operations
_LINE = re.compile(
  r'^\s+(?:ROOT )?%?(?P<name>[\w.-]+) = (?P<shape>\(?\S*?)(?:\{[\d,]*\})?'
  r'(?: .*)? (?P<op>[a-z][a-z-]*)\((?P<operands>[^)]*)\)(?P<rest>.*)$'
)
_SHAPE = re.compile(r'(?:f|s|u|pred|bf)\d*\[([\d,]*)\]')


def program_of(name: str) -> tuple[Any, Any, Any]:
  """A row's program, its state and a function that draws places in data."""
  row = ROWS[name]
  trainer = make_trainer(row.shape, **row.options)
  state = jax.jit(trainer.init)(jax.random.key(0))
  random = np.random.default_rng(0)
  data = random.uniform(-1, 1, (row.data, *row.shape)).astype(np.float32)
  data = jax.device_put(data)

  def run(state: Any, data: Any, places: Any) -> Any:
    return jax.lax.scan(lambda s, i: trainer.step(s, data[i]), state, places)

  def places() -> Any:
    shape = (row.scanned, trainer.real_batches, row.batch)
    return random.integers(0, row.data, shape, np.int32)

  lowered = jax.jit(run).lower(state, data, places())
  return lowered.compile(), (state, data), places


def operations(text: str) -> dict[str, dict[str, str]]:
  """What each operation of a compiled program is, by its name."""
  found, lines = {}, text.splitlines()
  shapes = {}
  for line in lines:
    match = _LINE.match(line)
    if match:
      shapes[match['name']] = match['shape']
  for line in lines:
    match = _LINE.match(line)
    if not match:
      continue
    source = re.search(r'op_name="([^"]*)"', match['rest'])
    names = re.findall(r'%([\w.-]+)', match['operands'])
    found[match['name']] = {
      'op': match['op'],
      'shape': match['shape'],
      'operands': ' '.join(shapes.get(n, '') for n in names),
      'rest': match['rest'],
      'source': source[1] if source else '',
    }
  return found


def is_library(name: str, op: str) -> bool:
  """Whether it is a call of a library of products and convolutions."""
  return op in ('convolution', 'dot') or 'ynn' in name or 'onednn' in name


def kind_of(name: str, fact: dict[str, str]) -> str:
  """Of an operation."""
  op, source = fact['op'], fact['source']
  if 'threefry' in source or '_uniform' in source or '_normal' in source:
    return 'random numbers'
  if is_library(name, op) and 'conv_general' in source.split('/')[-1]:
    return 'convolutions'
  if is_library(name, op):
    return 'products'
  if op in ('reduce', 'reduce-window') or 'reduce' in name:
    return 'reductions'
  if op in ('copy', 'transpose', 'concatenate', 'slice') or 'copy' in name:
    return 'copies'
  return 'fused kernels'


def events(folder: str) -> list[dict[str, Any]]:
  """Of the only trace below a folder."""
  (path,) = pathlib.Path(folder).rglob('*.trace.json.gz')
  return json.loads(gzip.decompress(path.read_bytes()))['traceEvents']


def alone(spans: list[dict[str, Any]]) -> dict[str, list[float]]:
  """Microseconds of the spans of each name, those within them left out."""
  found = collections.defaultdict(list)
  by_thread = collections.defaultdict(list)
  for span in spans:
    if span.get('ph') == 'X':
      by_thread[span['pid'], span['tid']].append(span)
  for thread in by_thread.values():
    thread.sort(key=lambda s: (s['ts'], -s['dur']))
    stack: list[dict[str, Any]] = []
    for span in thread:
      span['own'] = span['dur']
      while stack and span['ts'] >= stack[-1]['ts'] + stack[-1]['dur']:
        stack.pop()
      if stack:
        stack[-1]['own'] -= span['dur']
      stack.append(span)
    for span in thread:
      found[span['name']].append(span['own'])
  return found


def flops(fact: dict[str, str]) -> float:
  """Multiplications and additions of a product or convolution; 0 of others."""
  sizes = [
    [int(n) for n in shape.split(',') if n]
    for shape in _SHAPE.findall(fact['operands'])
  ]
  out = _SHAPE.findall(fact['shape'])
  if not out or len(sizes) < 2:
    return 0.0
  made = math.prod(int(n) for n in out[0].split(',') if n)
  if 'conv_general' in fact['source'].split('/')[-1]:  # the kernel is HWIO
    return 2.0 * made * math.prod(sizes[1][:-1])
  if 'dot_general' in fact['source'].split('/')[-1]:
    a, b = (math.prod(s) for s in sizes[:2])
    return 2.0 * math.sqrt(a * b * made)
  return 0.0


def profile(name: str) -> dict[str, Any]:
  """Where a row's time is."""
  row = ROWS[name]
  program, (state, data), places = program_of(name)
  facts = operations(program.as_text())
  count = max(3, 12 // row.scanned)
  for _ in range(2):
    state, _ = jax.block_until_ready(program(state, data, places()))
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      for _ in range(count):
        state, _ = jax.block_until_ready(program(state, data, places()))
    times = alone(events(folder))
  steps = count * row.scanned
  own = {
    name: min(spans) * len(spans) / 1e3 / steps
    for name, spans in times.items()
    if name in facts
  }
  kinds: collections.Counter[str] = collections.Counter()
  calls = collections.Counter[str]()
  for op, ms in own.items():
    kinds[kind_of(op, facts[op])] += ms
    calls[kind_of(op, facts[op])] += 1
  whole = sum(kinds.values())
  top = sorted(own.items(), key=lambda kv: -kv[1])[:SHOWN]
  return {
    'row': name,
    'ms_a_step_traced': round(whole, 4),
    'shares': {k: round(v / whole, 3) for k, v in kinds.most_common()},
    'operations': dict(calls),
    'dearest': [
      {
        'ms': round(ms, 4),
        'kind': kind_of(op, facts[op]),
        'name': re.sub(r'[.\d]+$', '', op),
        'gflops': round(flops(facts[op]) / ms / 1e6, 1),
        'shape': facts[op]['shape'],
        'operands': facts[op]['operands'][:90],
        'source': facts[op]['source'][-70:],
      }
      for op, ms in top
    ],
    'jax': jax.__version__,
  }


def main(names: list[str]) -> None:
  """Writes and prints."""
  for name in names:
    found = profile(name)
    path = HERE / 'profiles' / f'{name}.json'
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + '\n')
    print(name, found['ms_a_step_traced'], found['shares'])
    for line in found['dearest']:
      print('  ', *line.values())


if __name__ == '__main__':
  main(sys.argv[1:])
