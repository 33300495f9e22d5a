"""Programs for devices that are not here; tests/aot compiles them."""

import dataclasses
import json
import pathlib
import types

import jax
import jax.export
import numpy as np
import pytest
from helpers import programs, small
from jax.sharding import Mesh

from gan_jax.config import app
from gan_jax.game.schedules import SCHEDULES
from gan_jax.networks import ARCHITECTURES
from gan_jax.runtime import cards, topology
from gan_jax.runtime.errors import ArgumentError
from gan_jax.training import (
  compile_for,
  population_loop,
  population_program,
  run_loop,
)
from gan_jax.training import setup as setup_lib

TEXT = pathlib.Path(__file__).parents[1] / 'runtime' / 'hlo' / 'h100.txt'
H100 = cards.parse_target('h100')


def on_cpu(config, count):
  """A set-up as `compile_for.build` makes it, of this machine's devices."""
  mesh = Mesh(jax.devices()[:count], ('data',))
  return dataclasses.replace(setup_lib.build(config, devices=1), mesh=mesh)


@pytest.mark.slow
@pytest.mark.parametrize('devices', [1, 4])
def test_it_is_the_program_of_the_run(devices, tmp_path):
  config = small.ring(width=2, devices=devices, optimizer_g='sgd')
  loop = run_loop.RunLoop(setup_lib.build(config), tmp_path)
  chunk = loop._chunk(0, 1)
  own = run_loop.lower(loop.setup, loop.state, loop.constants, chunk)
  found = compile_for.lower_run(on_cpu(config, devices))
  loop.close()
  assert found.as_text() == own.as_text()


@pytest.mark.slow
def test_data_that_live_on_the_device_are_part_of_it(digits):
  text = compile_for.lower_run(on_cpu(small.digits(width=2), 1)).as_text()
  assert '1797x64xui8' in text  # in flat rows


@pytest.mark.slow
@pytest.mark.parametrize('layout', ['vmap', 'map'])
def test_it_is_the_program_of_the_population(layout, tmp_path):
  config = small.ring(width=2, devices=2, optimizer_g='sgd')
  members = population_program.members_of(
    [dataclasses.replace(config, seed=i, lr_g=1e-3 * (i + 1)) for i in range(3)]
  )
  loop = population_loop.PopulationLoop(config, members, tmp_path, layout)
  own = loop.code.lower(loop.state, loop._constants, loop._chunk(0, 1))
  program = population_program.PopulationProgram(
    setup_lib.build(config, devices=1), members, jax.devices()[:2], layout
  )
  found = compile_for.lower_population(program)
  loop.close()
  assert found.as_text() == own.as_text()


# All of them together are dear: each of both once, the rest with the soaks.
LOWERED = [
  pytest.param(
    *(name, schedule),
    marks=pytest.mark.slow
    if schedule == 'alternating' or name == 'mlp'
    else pytest.mark.soak,
  )
  for name in ARCHITECTURES
  for schedule in SCHEDULES
]


@pytest.mark.parametrize(('name', 'schedule'), LOWERED)
def test_every_game_is_lowered_for_accelerators(name, schedule, digits):
  # Without a plugin: as far as JAX itself goes.
  try:
    config = programs.small(name, schedule)
  except ArgumentError as error:
    pytest.skip(f'no such game: {error}')
  setup = setup_lib.build(config, devices=1)
  advance = run_loop.make_advance(setup)
  key = setup.shapes.key

  def advance_from(state, data, *rest):
    state = state.replace(key=jax.random.wrap_key_data(data))
    return advance(state, *rest)[1:]

  data = jax.eval_shape(jax.random.key_data, key)
  chunk = jax.tree.map(lambda x: x, setup.feed.chunk(0, 2))
  shapes = setup.shapes.replace(key=None)
  exported = jax.export.export(
    jax.jit(advance_from), platforms=['tpu', 'cuda']
  )(shapes, data, setup.feed.constants, chunk, np.int32(1))
  assert exported.platforms == ('tpu', 'cuda')
  text = exported.mlir_module()
  assert 'select_and_scatter' not in text and 'stablehlo.scatter' not in text
  assert 'callback' not in text


# What is told of it.


def compiled(temporaries=10**6):
  """What XLA returns, with the text of another program."""
  memory = types.SimpleNamespace(
    argument_size_in_bytes=3 * 10**6,
    temp_size_in_bytes=temporaries,
    output_size_in_bytes=3 * 10**6,
    alias_size_in_bytes=2 * 10**6,
    generated_code_size_in_bytes=0,
  )
  return types.SimpleNamespace(
    as_text=TEXT.read_text, memory_analysis=lambda: memory
  )


def examine(result=None, error=None, exact=True, **options):
  def compile(compiler_options):
    asked = 'xla_gpu_exclude_nondeterministic_ops' in compiler_options
    assert asked == exact
    if error is not None:
      raise error
    return result

  lowered = types.SimpleNamespace(compile=compile)
  return compile_for.examine(lambda: lowered, H100, small.ring(**options))


def test_the_table_says_what_the_program_needs(tmp_path, capsys):
  place = tmp_path / 'found.json'
  assert compile_for.report(examine(compiled()), str(place)) == app.DONE
  text = capsys.readouterr().out
  assert '80GB HBM3' in text and 'launches' in text
  assert 'memory: 5.0 MB: 3.0 MB of arguments, 1.0 MB of temporaries' in text
  assert 'fits into the 63.7 GB that JAX takes' in text
  facts = json.loads(place.read_text())
  kinds = sum(kind['kernels'] for kind in facts['kinds'].values())
  assert facts['fits'] and facts['step']['kernels'] == kinds
  assert facts['step']['seconds'] > facts['step']['launch_seconds'] > 0
  assert facts['versions']['jax'] == jax.__version__


def test_what_does_not_fit_is_said(capsys):
  assert compile_for.report(examine(compiled(64 * 10**9)), '') == app.ERROR
  text = capsys.readouterr().out
  assert 'does not fit into the 63.7 GB' in text and '`batch_size`' in text


def test_jax_may_be_told_to_take_more(monkeypatch):
  monkeypatch.setenv('XLA_PYTHON_CLIENT_MEM_FRACTION', '.95')
  assert examine(compiled(64 * 10**9))['fits']


def test_a_compiler_that_finds_no_room_is_understood(capsys):
  error = jax.errors.JaxRuntimeError(
    'RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.50G of'
    ' 15.75G hbm. Exceeded hbm capacity by 4.75G.'
  )
  assert compile_for.report(examine(error=error), '') == app.ERROR
  assert '20.50GB of 15.75GB' in capsys.readouterr().out


def test_other_faults_of_the_compiler_are_raised():
  with pytest.raises(jax.errors.JaxRuntimeError, match='INTERNAL'):
    examine(error=jax.errors.JaxRuntimeError('INTERNAL: something'))


def test_it_is_compiled_as_deterministic_as_the_run():
  assert examine(compiled())['fits']
  assert examine(compiled(), exact=False, deterministic='off')['fits']


# What it is asked.


@pytest.mark.parametrize(
  ('name', 'error', 'extra'),
  [
    ('h100', NotImplementedError('topology not implemented'), 'cuda12'),
    ('v5e:2x4', RuntimeError('JAX TPU support not installed; see'), 'tpu'),
  ],
)
def test_a_plugin_that_is_not_there_is_named(name, error, extra, monkeypatch):
  def describe(*args, **kwargs):
    raise error

  monkeypatch.setattr(topology.topologies, 'get_topology_desc', describe)
  with pytest.raises(ArgumentError, match=rf'gan_jax\[{extra}\]'):
    topology.make_mesh(cards.parse_target(name))


def test_devices_are_those_of_the_target(monkeypatch):
  mesh = Mesh(jax.devices()[:2], ('data',))
  monkeypatch.setattr(topology, 'make_mesh', lambda target: mesh)
  target = cards.parse_target('h100:2')
  with pytest.raises(ArgumentError, match='devices=4'):
    compile_for.build(small.ring(devices=4), target)
  with pytest.raises(ArgumentError, match='batch_size=9'):
    compile_for.build(small.ring(devices=0, batch_size=9), target)
  assert compile_for.build(small.ring(devices=2), target).mesh == mesh


def test_json_goes_into_the_workdir_or_where_it_is_told_to(tmp_path):
  target, folder = cards.parse_target('h100:2x4'), tmp_path / 'new'
  assert compile_for.place_of('', target, '') == ''
  found = compile_for.place_of(str(folder), target, '')
  assert found == str(folder / 'compile_for_h100_2x4.json')
  assert compile_for.place_of(str(folder), target, 'it.json') == 'it.json'
  (tmp_path / 'file').touch()
  with pytest.raises(ArgumentError, match='out='):
    compile_for.place_of('', target, str(tmp_path / 'file' / 'it.json'))


def test_a_run_may_begin_where_it_was_compiled_for(tmp_path):
  from gan_jax.training import workdir

  config = small.ring(workdir=str(tmp_path))
  pathlib.Path(compile_for.place_of(str(tmp_path), H100, '')).touch()
  workdir.check(config)
  (tmp_path / 'other.json').touch()
  with pytest.raises(ArgumentError, match='not empty'):
    workdir.check(config)
