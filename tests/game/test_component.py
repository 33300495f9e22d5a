"""Components: fields traced, compiled in or refused; paths of numbers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.toygame import still, trainer_of
from helpers.untyped import message

from gan_jax.game import objectives, optimizers, regularizers, schedules
from gan_jax.game.component import (
  Component,
  hyperparameters,
  static,
  with_hyperparameters,
)
from gan_jax.game.game import Game, InstanceNoise
from gan_jax.game.objectives import Objective
from gan_jax.game.trainer import Ema, Trainer


class Inner(Component):
  depth: float = 1.0


class Outer(Component):
  inner: Inner = Inner()
  weight: float = 2.0
  absent: float | None = None
  often: int = static(3)


def test_floats_are_traced_and_static_fields_compiled_in():
  outer = Outer()
  assert jax.tree.leaves(outer) == [1.0, 2.0]
  traces = []

  @jax.jit
  def total(outer):
    traces.append(outer.often)
    return (outer.inner.depth + outer.weight) * outer.often

  assert float(total(outer)) == 9
  assert float(total(outer.replace(weight=0.5))) == 4.5
  assert float(total(outer.replace(often=1))) == 3
  assert traces == [3, 1]
  with pytest.raises(dataclasses.FrozenInstanceError):
    outer.weight = 1.0


def test_paths_are_names_of_fields_and_leave_out_what_is_none():
  assert hyperparameters(Outer()) == {'inner.depth': 1.0, 'weight': 2.0}
  changed = with_hyperparameters(Outer(), {'inner.depth': 5.0})
  assert changed == Outer(inner=Inner(depth=5.0))
  assert hyperparameters(Outer(absent=0.5))['absent'] == 0.5


@pytest.mark.parametrize('kind', [int, bool, str, tuple, jax.Array, 'int'])
def test_an_unmarked_field_is_an_error_at_the_definition(kind):
  """A class without it is none; a marked one is."""
  with pytest.raises(TypeError) as caught:
    type('Wrong', (Component,), {'__annotations__': {'times': kind}})
  assert str(caught.value).startswith('Wrong.times: ')
  assert str(caught.value).endswith(
    ' is neither a float (a hyper-parameter) nor a component; write'
    ' `times: ... = gj.static(default)`, which is compiled in'
  )
  fields = {'__annotations__': {'times': kind}, 'times': static(None)}
  assert type('Right', (Component,), fields)().times is None


def test_all_numbers_of_a_trainer_by_their_paths():
  game = Game(
    still(),
    objectives.minimax,
    [regularizers.wgan_gp(place='real'), regularizers.clip],
    instance_noise=InstanceNoise(0.5),
  )
  decay = optimizers.cosine(steps=10, final=0.1)
  trainer = Trainer(
    game,
    optimizers.adam(1e-3, decay=decay, clip=2.0),
    optimizers.sgd,
    schedules.consensus,
  )
  assert trainer.hyperparameters() == {
    'objective.smoothing': 0.0,
    'regularizers.wgan_gp@real.weight': 10.0,
    'regularizers.clip.bound': 0.01,
    'instance_noise.std': 0.5,
    'instance_noise.kimg': 0.0,
    'optimizer_g.learning_rate': 1e-3,
    'optimizer_g.beta1': 0.5,
    'optimizer_g.clip': 2.0,
    'optimizer_g.decay.final': 0.1,
    'optimizer_g.beta2': 0.999,
    'optimizer_d.learning_rate': 2e-4,
    'optimizer_d.beta1': 0.5,
    'schedule.weight': 0.1,
    'ema.halflife_kimg': 10.0,
  }
  state = trainer.init(jax.random.key(0), {'objective.smoothing': 0.25})
  assert float(state.hyper['objective.smoothing']) == 0.25
  assert {x.dtype for x in state.hyper.values()} == {jnp.dtype('float32')}


def test_numbers_injected_by_optax_have_paths_too():
  injected = optax.inject_hyperparams(optax.adam)(
    learning_rate=optax.linear_schedule(1.0, 0.0, 5), b1=0.25
  )
  plain = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1))
  found = trainer_of(optimizer_g=injected, optimizer_d=plain).hyperparameters()
  assert found['optimizer_g.b1'] == 0.25
  # Neither what a schedule sets, nor what was not injected.
  assert not [name for name in found if 'learning_rate' in name]
  assert not [name for name in found if name.startswith('optimizer_d')]


@pytest.mark.parametrize('leaf', [0, True, object(), 'x', jax.ShapeDtypeStruct])
def test_a_tree_map_may_put_anything_in_the_place_of_numbers(leaf):
  """As JAX does with tracers, shapes, shardings and axes."""
  trainer = trainer_of(ema=Ema())
  mapped = jax.tree.map(lambda _: leaf, trainer)
  assert set(map(str, jax.tree.leaves(mapped))) == {str(leaf)}
  restored = jax.tree.map(lambda _, x: x, mapped, trainer)
  assert restored.hyperparameters() == trainer.hyperparameters()


def test_a_changed_copy_is_checked_and_put_together_anew():
  trainer = trainer_of()
  game = trainer.game.replace(objective=objectives.hinge)
  assert trainer.replace(game=game).game.objective == objectives.Hinge()
  game = trainer.game.replace(regularizers=[regularizers.r1])
  assert list(game.regularizers) == ['r1']
  assert trainer.replace(schedule=schedules.unrolled).schedule.unroll_steps == 5
  said = message(
    trainer.game.replace, objective=objectives.minimax(smoothing=2.0)
  )
  assert '`objective.smoothing=2.0`' in said
  said = message(trainer.at, {'optimizer_d.learning_rate': -1.0})
  assert said == '`optimizer_d.learning_rate=-1.0`: use more than 0'


def test_components_keep_their_order_through_a_tree_map():
  items = ['wgan_gp', 'lecam', 'r1']
  terms = [regularizers.REGULARIZERS[name] for name in items]
  game = Game(still(), objectives.hinge, regularizers=terms)
  mapped = jax.tree.map(lambda x: x, game)
  assert list(mapped.regularizers) == items
  weights = [term.weight for term in mapped.terms]
  assert weights == [term().weight for term in terms]


class Temperature(Objective):
  """As a user writes it: no decorator, no registry."""

  temperature: float = 2.0

  def d_loss(self, real, fake):
    return jnp.mean(jax.nn.softplus((fake - real) / self.temperature))

  def g_loss(self, real, fake):
    return -jnp.mean(fake)


def test_a_component_of_ones_own_is_one():
  game = Game(still(), Temperature)
  trainer = trainer_of(game=game)
  assert trainer.hyperparameters()['objective.temperature'] == 2.0
  assert game.objective.name == 'temperature'
  half = Game(still(), Temperature(temperature=np.float32(0.5)))
  assert trainer_of(game=half).hyperparameters()['objective.temperature'] == 0.5
