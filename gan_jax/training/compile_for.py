"""Runs compiled for devices that are not here, and what that tells of them.

The very program that a run or a population dispatches, for one or many devices:
its kernels, its memory against theirs, and an estimate of the time of a step by
a roofline.
"""

import dataclasses
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding
from tabulate import tabulate

from gan_jax.config import app, schema
from gan_jax.config.schema import Config
from gan_jax.game import population
from gan_jax.runtime import hlo, kernels, places, sharding, topology
from gan_jax.runtime.cards import Card, Target, parse_target
from gan_jax.runtime.errors import ArgumentError
from gan_jax.runtime.files import cannot_write, write_atomic
from gan_jax.runtime.kernels import Kernel
from gan_jax.runtime.progress import format_bytes
from gan_jax.runtime.provenance import accelerator_versions, commit, versions
from gan_jax.training import setup as setup_lib
from gan_jax.training import workdir as workdir_lib
from gan_jax.training.dispatch import Pace
from gan_jax.training.population_program import PopulationProgram
from gan_jax.training.run_loop import lower
from gan_jax.training.setup import Setup

PyTree = Any
_LARGEST = 10  # kernels that are told of by name


def compile_config(config: Config, text: str, out: str = '') -> int:
  """Compiles a run as the command does: prints a table, writes JSON.

  Args:
    config: of the run; of its workdir nothing but the place of the JSON is
      used.
    text: of the target.
    out: file of the JSON; empty for one in the workdir, if there is one.

  Returns:
    0 if the program fits, 1 if it does not.

  Raises:
    ArgumentError, DataError: naming what is of no use.
  """
  target = parse_target(text)
  config.validate()
  if config.workdir:
    workdir_lib.check(config)
  place = place_of(config.workdir, target, out)
  topology.use_no_device()
  setup = build(config, target)
  facts = examine(lambda: lower_run(setup), target, config)
  return report(facts, place)


def report(facts: dict[str, Any], place: str) -> int:
  """Prints and writes what `examine` found; the exit code of a command."""
  print(format_table(facts))
  if place:
    try:
      write_atomic(pathlib.Path(place), json.dumps(facts, indent=1).encode())
    except OSError as error:
      raise cannot_write('out', place, error) from error
    print(f'written: {place}')
  return app.DONE if facts['fits'] else app.ERROR


def place_of(workdir: str, target: Target, out: str) -> str:
  """Where the JSON goes: `out`, or a file of the workdir; '' for nowhere.

  Raises:
    ArgumentError: if its folder cannot be made.
  """
  if not (out or workdir):
    return ''
  if not out:
    places.resolved('workdir', workdir)  # a URL is refused
  name = f'compile_for_{target.text.replace(":", "_")}.json'
  place = pathlib.Path(out or pathlib.Path(workdir, name))
  try:
    place.parent.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    name = 'out' if out else 'workdir'
    raise cannot_write(name, out or workdir, error) from error
  return str(place)


# The program.


def build(config: Config, target: Target) -> Setup:
  """A run set up on the devices of a target.

  Raises:
    ArgumentError, DataError: naming what is of no use.
  """
  mesh = topology.make_mesh(target)
  if config.devices not in (0, mesh.size):
    remedy = f'`compile_for={target.text}` has {mesh.size}; leave it out'
    raise ArgumentError('devices', config.devices, remedy)
  setup = setup_lib.build(config, devices=1)
  sharding.check_batch(mesh, config.batch_size, setup.trainer.accumulate)
  return dataclasses.replace(setup, mesh=mesh)


def lower_run(setup: Setup) -> Any:
  """What `RunLoop` compiles, lowered from shapes alone."""
  mesh, batch = setup.mesh, setup.config.batch_size
  item = setup.feed.chunk(0, 1, sharding.local_rows(mesh, batch))
  capacity, split = Pace(item).capacity, sharding.chunk_sharding(mesh)

  def chunk(x: Any) -> jax.ShapeDtypeStruct:
    shape = (capacity, x.shape[1], batch, *x.shape[3:])
    return jax.ShapeDtypeStruct(shape, x.dtype, sharding=split)

  whole = sharding.replicated(mesh)
  return lower(
    setup,
    sharding.describe(setup.shapes, whole),
    sharding.describe(setup.feed.constant_shapes, whole),
    jax.tree.map(chunk, item),
  )


def lower_population(program: PopulationProgram) -> Any:
  """What `PopulationLoop` compiles, lowered from shapes alone."""
  mesh, room, feed = program.mesh, program.room, program.setup.feed
  item = feed.chunk(0, 1)
  capacity, split = Pace(item, room).capacity, population.split(mesh)

  def chunk(x: Any) -> jax.ShapeDtypeStruct:
    shape = (room, capacity, *x.shape[1:])
    return jax.ShapeDtypeStruct(shape, x.dtype, sharding=split)

  return program.lower(
    jax.tree.map(_put, program.shapes(room), program.shardings),
    sharding.describe(feed.constant_shapes, population.whole(mesh)),
    jax.tree.map(chunk, item),
  )


def _put(x: Any, where: Sharding) -> jax.ShapeDtypeStruct:
  """The shape of an array, and its place."""
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)


# What the compiled program tells.


def examine(
  lower: Callable[[], Any], target: Target, config: Config
) -> dict[str, Any]:
  """Compiles, and says what came of it; numbers are those of one device.

  Args:
    lower: lowers the program for devices of the target.
    target: of them.
    config: of the run, or of those of a population.
  """
  card = target.card
  facts: dict[str, Any] = {
    'target': target.text,
    'card': card.title,
    'devices': int(np.prod(target.shape)),
    'versions': versions() | accelerator_versions(),
    'commit': commit(),
    'options': schema.to_args(config),
  }
  exact, started = config.deterministic != 'off', time.perf_counter()
  try:
    compiled = topology.compile_lowered(lower(), target, exact)
  except topology.DoesNotFit as error:
    return facts | {'fits': False, 'message': str(error)}
  facts['compile_sec'] = round(time.perf_counter() - started, 1)
  module = hlo.parse(compiled.as_text())
  found = kernels.count(module)
  memory = _memory(compiled.memory_analysis(), card)
  return facts | {
    'fits': memory['needed'] <= memory['usable'],
    'memory': memory,
    'step': _sum_up(found, target),
    'kinds': {
      kind: _sum_up([k for k in found if k.kind == kind], target)
      for kind in kernels.KINDS
    },
    'largest': _largest(found, target),
    'collectives': _collectives(found),
    'host_transfers': kernels.find_host_transfers(module),
    'scatters': kernels.find_scatters(module),
  }


def _memory(analysis: Any, card: Card) -> dict[str, int]:
  """Bytes; an output that takes the place of an argument needs no more."""
  parts = {
    'arguments': analysis.argument_size_in_bytes,
    'temporaries': analysis.temp_size_in_bytes,
    'output': analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
    'code': analysis.generated_code_size_in_bytes,
  }
  share = float(os.environ.get('XLA_PYTHON_CLIENT_MEM_FRACTION', card.share))
  usable = int(card.memory * share)
  return parts | {'needed': sum(parts.values()), 'usable': usable}


def _sum_up(found: Sequence[Kernel], target: Target) -> dict[str, Any]:
  card, hosts = target.card, target.hosts
  launches = sum(kernel.count for kernel in found)
  spent = [k.count * kernels.seconds(k, card, hosts) for k in found]
  return {
    'kernels': launches,
    'bytes': kernels.total(found, 'bytes'),
    'flops': kernels.total(found, 'flops'),
    'cycles': kernels.total(found, 'cycles'),
    'seconds': sum(spent),
    'launch_seconds': launches * card.launch,
  }


def _largest(found: Sequence[Kernel], target: Target) -> list[dict[str, Any]]:
  """Those that take the longest by the estimate."""
  card, hosts = target.card, target.hosts

  def spent(kernel: Kernel) -> float:
    return kernel.count * kernels.seconds(kernel, card, hosts)

  longest = sorted(found, key=spent, reverse=True)[:_LARGEST]
  return [dataclasses.asdict(k) | {'seconds': spent(k)} for k in longest]


def _collectives(found: Sequence[Kernel]) -> dict[str, dict[str, int]]:
  sorts = sorted({k.what for k in found if k.kind == 'collective'})
  return {
    what: {
      'count': sum(k.count for k in found if k.what == what),
      'bytes': kernels.total((k for k in found if k.what == what), 'bytes'),
    }
    for what in sorts
  }


# The table.


def format_table(facts: Mapping[str, Any]) -> str:
  """What `examine` found, for a person."""
  devices = facts['devices']
  head = f'{facts["target"]}: {devices} x {facts["card"]}'
  head += ', of which this is one' if devices > 1 else ''
  if 'step' not in facts:
    return f'{head}\ndoes not fit: {facts["message"]}\n{_LEVERS}'
  tables = [_kinds_table(facts), _largest_table(facts)]
  return '\n\n'.join([head, *tables, '\n'.join(_lines(facts))])


_LEVERS = (
  'use a smaller `batch_size`, `width` or network, `accumulate`, fewer members,'
  ' `precision=bfloat16`, or `residence=stream`'
)


def _kinds_table(facts: Mapping[str, Any]) -> str:
  rows = [
    [kind, *_row(numbers)]
    for kind, numbers in [*facts['kinds'].items(), ('all', facts['step'])]
    if numbers['kernels']
  ]
  columns = ['kernels of a step', '', 'MB', 'GFLOP', 'us']
  return tabulate(rows, columns, floatfmt=('', '', '.1f', '.2f', '.1f'))


def _row(numbers: Mapping[str, Any]) -> list[Any]:
  return [
    numbers['kernels'],
    numbers['bytes'] / 1e6,
    numbers['flops'] / 1e9,
    numbers['seconds'] * 1e6,
  ]


def _largest_table(facts: Mapping[str, Any]) -> str:
  rows = [
    [
      k['name'],
      k['count'],
      k['count'] * k['bytes'] / 1e6,
      k['count'] * k['flops'] / 1e9,
      k['seconds'] * 1e6,
      k['kind'],
    ]
    for k in facts['largest']
  ]
  columns = ['the longest', '', 'MB', 'GFLOP', 'us', '']
  return tabulate(rows, columns, floatfmt=('', '', '.1f', '.2f', '.1f'))


def _lines(facts: Mapping[str, Any]) -> Iterator[str]:
  step, memory = facts['step'], facts['memory']
  line = f'estimate: {step["seconds"] * 1e3:.3g} ms a step'
  if step['launch_seconds']:
    share = step['launch_seconds'] / step['seconds']
    line += (
      f', {share:.0%} of it launches ({step["kernels"]:,} of'
      f' {step["launch_seconds"] / step["kernels"] * 1e6:.1f} us)'
    )
  yield line + '; a roofline: no kernel is faster, most are slower'
  if step['cycles']:
    yield f"the compiler's own estimate: {step['cycles']:,} cycles"
  for what, numbers in facts['collectives'].items():
    yield f'{numbers["count"]} {what}, {numbers["bytes"] / 1e6:.1f} MB'
  for name, what in (
    ('host_transfers', 'transfers to or from the host'),
    ('scatters', 'scatters, which may add in any order'),
  ):
    if facts[name]:
      yield f'{len(facts[name])} {what}: {", ".join(facts[name][:4])}'
  names = ('arguments', 'temporaries', 'output', 'code')
  parts = ', '.join(f'{format_bytes(memory[name])} of {name}' for name in names)
  yield f'memory: {format_bytes(memory["needed"])}: {parts}'
  limit = f'the {format_bytes(memory["usable"])} that JAX takes of the device'
  yield f'fits into {limit}' if facts['fits'] else f'does not fit into {limit}'
  if not facts['fits']:
    yield _LEVERS


__all__ = [
  'build',
  'compile_config',
  'examine',
  'format_table',
  'lower_population',
  'lower_run',
  'place_of',
  'report',
]
