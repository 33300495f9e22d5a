"""Steps compiled for GPUs that are not here: `bash tests/aot/run`.

On one H100 with XLA's deterministic operations, and on two hosts of four. No
step talks to the host or adds in any order; kernels and memory stay within
`budgets.txt`, a line a program; `GAN_JAX_AOT_WRITE=FILE` writes them anew.
"""

import dataclasses
import functools
import itertools
import os
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import programs

from gan_jax.game.regularizers import REGULARIZERS
from gan_jax.game.schedules import SCHEDULES
from gan_jax.networks import ARCHITECTURES, layers
from gan_jax.runtime import cards, hlo, kernels, sharding, topology
from gan_jax.runtime.errors import ArgumentError
from gan_jax.training import compile_for

pytestmark = pytest.mark.aot
BUDGETS = pathlib.Path(__file__).with_name('budgets.txt')
WRITE = os.environ.get('GAN_JAX_AOT_WRITE', '')
TARGETS = ('h100', 'h100:2x4')
PENALTIES = ('', *REGULARIZERS)
CHOSEN = {
  *((name, 'alternating', '') for name in ARCHITECTURES),
  *((name, 'alternating', 'r1') for name in ARCHITECTURES if name != 'dirac'),
  *(('mlp', schedule, '') for schedule in SCHEDULES),
  *(('dcgan', schedule, '') for schedule in SCHEDULES),
  *(('dcgan', 'alternating', penalty) for penalty in PENALTIES),
}
WHOLE = itertools.product(ARCHITECTURES, SCHEDULES, PENALTIES)
PROGRAMS = [
  pytest.param(
    *words,
    marks=() if words in CHOSEN else pytest.mark.soak,
    id='-'.join(words).rstrip('-'),
  )
  for words in WHOLE
]


@pytest.fixture(autouse=True)
def compiler():
  """The compiler, or the reason why it is not there; it starts afresh."""
  try:
    topology.make_mesh(cards.parse_target('h100'))
  except ArgumentError as error:
    pytest.skip(str(error))
  jax.config.update('jax_enable_compilation_cache', False)
  yield
  jax.config.update('jax_enable_compilation_cache', True)


@pytest.fixture
def deterministic(monkeypatch):
  """As a run with deterministic operations is compiled."""
  options = topology.OPTIONS['cuda'] | {'xla_gpu_deterministic_ops': True}
  monkeypatch.setitem(topology.OPTIONS, 'cuda', options)


def compile_program(architecture, schedule, penalty, target):
  """The optimised program of a small run, and its memory; or None."""
  try:
    config = programs.small(architecture, schedule, penalty)
    setup = compile_for.build(config, target)
  except ArgumentError as error:
    pytest.skip(f'no such game: {error}')
  lowered = compile_for.lower_run(setup)
  exact = target.text == 'h100'
  compiled = topology.compile_lowered(lowered, target, exact)
  return hlo.parse(compiled.as_text()), compiled.memory_analysis()


@functools.cache
def budgets():
  """Kernels and KiB of temporaries by program, and the versions they are of."""
  versions, *lines = BUDGETS.read_text().splitlines()
  return versions.removeprefix('# '), {
    name: (int(count), int(kib))
    for name, count, kib in (line.split() for line in lines)
  }


def versions():
  return f'jax {jax.__version__}'


def check_budget(name, module, memory):
  """Fails if a program has more kernels or memory than its line allows."""
  count = sum(k.count for k in kernels.count(module))
  kib = -(-memory.temp_size_in_bytes // 1024)
  if WRITE:
    with open(WRITE, 'a') as file:
      file.write(f'{name} {count} {kib}\n')
    return
  head, lines = budgets()
  if head != versions() or name not in lines:
    return  # others fuse otherwise; of the whole product not all have a line
  most, room = lines[name]
  assert count <= most, f'{name}: {count} kernels, {most} are allowed'
  # Buffers are laid out otherwise after changes that need no more of them.
  assert kib <= 1.1 * room + 16, (
    f'{name}: {kib} KiB of temporaries, {room} are allowed'
  )


def name_of(words, target):
  return '-'.join([word for word in words if word] + [target.text])


def check(module):
  """What must not be in any step; its kernels."""
  assert not kernels.find_host_transfers(module)
  assert not kernels.find_scatters(module)
  found = kernels.count(module)
  assert not {k.what for k in found if k.kind == 'other'}
  return found


def collectives_of(found):
  return {k.what for k in found if k.kind == 'collective'}


@pytest.mark.parametrize(('architecture', 'schedule', 'penalty'), PROGRAMS)
def test_on_one_card(architecture, schedule, penalty, digits, deterministic):
  words, target = (architecture, schedule, penalty), cards.parse_target('h100')
  module, memory = compile_program(*words, target)
  assert not collectives_of(check(module))
  check_budget(name_of(words, target), module, memory)


@pytest.mark.parametrize(('architecture', 'schedule', 'penalty'), PROGRAMS)
def test_on_two_hosts_of_four(architecture, schedule, penalty, digits):
  words = (architecture, schedule, penalty)
  target = cards.parse_target('h100:2x4')
  module, memory = compile_program(*words, target)
  assert collectives_of(check(module)) == {'all-reduce'}
  check_budget(name_of(words, target), module, memory)


def test_devices_add_gradients_of_bfloat16_in_float32(digits):
  target = cards.parse_target('h100:2x4')
  config = programs.small('dcgan', 'alternating', '')
  config = dataclasses.replace(config, precision='bfloat16')
  setup = compile_for.build(config, target)
  lowered = compile_for.lower_run(setup)
  compiled = topology.compile_lowered(lowered, target, False)
  found = kernels.count(hlo.parse(compiled.as_text()))
  exchanged = [k for k in found if k.kind == 'collective']
  assert {k.dtype for k in found} >= {'bf16'}
  assert {(k.what, k.dtype) for k in exchanged} == {('all-reduce', 'f32')}


# Faults planted: what is looked for above is found.


def compiled(f, *shapes):
  target = cards.parse_target('h100')
  where = sharding.replicated(topology.make_mesh(target))
  args = [
    jax.ShapeDtypeStruct(shape, dtype, sharding=where)
    for shape, dtype in shapes
  ]
  lowered = jax.jit(f).lower(*args)
  return hlo.parse(
    topology.compile_lowered(lowered, target, exact=False).as_text()
  )


def max_pool():
  def pooled(x):
    window = (1, 2, 2, 1)
    y = jax.lax.reduce_window(x, -np.inf, jax.lax.max, window, window, 'VALID')
    return jnp.sum(y**2)

  return compiled(jax.grad(pooled), ((4, 8, 8, 3), np.float32))


def scatter():
  shapes = ((32, 4), np.float32), ((100,), np.int32)
  return compiled(jax.grad(lambda x, i: jnp.sum(x[i] ** 2)), *shapes)


@pytest.mark.parametrize('plant', [max_pool, scatter])
def test_what_adds_in_any_order_is_found(plant):
  module = plant()
  assert kernels.find_scatters(module)
  with pytest.raises(AssertionError):
    check(module)


@pytest.mark.parametrize('plant', [max_pool, scatter])
def test_what_xla_sorts_to_be_deterministic_is_found(plant, deterministic):
  module = plant()
  assert not kernels.find_scatters(module)
  with pytest.raises(AssertionError, match='sort'):
    check(module)


def test_a_callback_has_no_host_to_call():
  # What XLA prints of one, on a machine that has the card, is in test_kernels.
  def told(x):
    jax.debug.callback(lambda x: None, x)
    return x + 1

  with pytest.raises(RuntimeError, match='gpu'):
    compiled(told, ((8,), np.float32))


def test_statistics_taken_twice_exceed_the_budget(
  digits, deterministic, monkeypatch
):
  words, target = ('mlp', 'alternating', ''), cards.parse_target('h100')
  monkeypatch.setitem(programs.OPTIONS['mlp'], 'norm_g', 'batch')
  module, memory = compile_program(*words, target)
  line = (sum(k.count for k in kernels.count(module)), 10**6)
  here = sys.modules[__name__]
  found = (versions(), {name_of(words, target): line})
  monkeypatch.setattr(here, 'budgets', lambda: found)
  monkeypatch.setattr(here, 'WRITE', '')
  check_budget(name_of(words, target), module, memory)
  once = layers.BatchNorm.__call__

  def twice(self, x, *args, **kwargs):
    return once(self, x - x.mean(0, keepdims=True), *args, **kwargs)

  monkeypatch.setattr(layers.BatchNorm, '__call__', twice)
  module, memory = compile_program(*words, target)
  with pytest.raises(AssertionError, match='kernels'):
    check_budget(name_of(words, target), module, memory)
