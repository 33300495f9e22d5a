"""What is of no use is refused where it is given, in words, whole."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.toygame import BATCH, game_of, mlp, net, still, trainer_of
from helpers.untyped import message

from gan_jax import networks
from gan_jax.game import (
  augment,
  objectives,
  optimizers,
  regularizers,
  schedules,
)
from gan_jax.game.game import Game, InstanceNoise
from gan_jax.game.population import population
from gan_jax.game.regularizers import Regularizer
from gan_jax.game.trainer import Ema, Trainer

R1 = regularizers.r1


def game(*args, **kwargs):
  return Game(still(), *args, **kwargs)


def trainer(g=optimizers.sgd, d=optimizers.sgd, *args):
  return Trainer(game_of(), g, d, *args)


class Idle(Regularizer):
  """Does nothing."""


class Weightless(Regularizer):
  """Has a term that nothing weighs."""

  def on_d(self, view):
    return jnp.mean(view.real_logits)


class LazyG(Regularizer):
  """Is lazy where nothing is."""

  weight: float = 1.0
  every: int = regularizers.static(4)

  def on_g(self, view):
    return jnp.mean(view.fake)


class Demanding(objectives.Objective):
  """Has a field without a default."""

  margin: float


OPTAX = (
  'is no optimizer; give one of `gan_jax.optimizers`, or a transformation of'
  ' Optax such as `optax.adam(1e-4)`'
)
NAME = 'itself, or let `make_trainer` find names'
GAMES = {
  'a name for an objective': (
    lambda: game('hinge'),
    f'`objective=hinge`: is a name; give the objective {NAME}',
  ),
  'a name for a regularizer': (
    lambda: game(objectives.hinge, ['r1']),
    f'`regularizers=r1`: is a name; give the regularizer {NAME}',
  ),
  'a function for an objective': (
    lambda: game(jnp.mean),
    '`objective=function`: is no objective; derive its class from `Objective`',
  ),
  'a class that asks for more': (
    lambda: game(Demanding),
    '`objective=Demanding`: cannot be made without arguments (Demanding.'
    "__init__() missing 1 required positional argument: 'margin')",
  ),
  'a regularizer twice': (
    lambda: game(objectives.hinge, [R1, R1(weight=2.0)]),
    '`regularizers=r1`: is there twice and would count twice; leave one out',
  ),
  'a regularizer without a list': (
    lambda: game(objectives.hinge, regularizers.clip),
    "`regularizers=<class 'gan_jax.game.regularizers.Clip'>`: give a list of"
    ' them',
  ),
  'a regularizer that does nothing': (
    lambda: game(objectives.hinge, [Idle]),
    '`regularizers=idle`: overrides none of on_d, on_g, project_d',
  ),
  'a term without a weight': (
    lambda: game(objectives.hinge, [Weightless]),
    '`regularizers=weightless`: adds to a loss and has no weight; give it a'
    ' field `weight: float`',
  ),
  'a lazy term of G': (
    lambda: game(objectives.hinge, [LazyG]),
    '`regularizers.lazy_g.every=4`: only terms of D are lazy; leave it 1',
  ),
  'a term that never comes': (
    lambda: game(objectives.hinge, [R1(every=0)]),
    '`regularizers.r1.every=0`: use a whole number of 1 or more',
  ),
  'a place that there is not': (
    lambda: game(objectives.hinge, [regularizers.wgan_gp(place='here')]),
    '`regularizers.wgan_gp@here.place=here`: use one of interpolates, real,'
    ' fake',
  ),
  'consistency of points': (
    lambda: game(objectives.hinge, [regularizers.bcr]),
    '`regularizers=bcr`: flips and shifts images, and samples are of shape'
    ' (2,); leave it out',
  ),
  'augmented points': (
    lambda: game(objectives.hinge, augment=[augment.color]),
    '`augment=color`: is for images, and samples are of shape (2,); leave it'
    ' out',
  ),
  'labels that are none': (
    lambda: game(objectives.minimax(smoothing=1.0)),
    '`objective.smoothing=1.0`: use 0 (none) or more and less than 1',
  ),
  'one label for both kinds': (
    lambda: game(objectives.least_squares(real=0.5, fake=0.5)),
    '`objective.real=0.5`: is the label of generated samples too, and D would'
    ' have nothing to tell apart; use two numbers',
  ),
  'negative noise': (
    lambda: game(objectives.hinge, instance_noise=InstanceNoise(-1.0)),
    '`instance_noise.std=-1.0`: use 0 or more',
  ),
  'noise that is a number': (
    lambda: game(objectives.hinge, instance_noise=0.1),
    '`instance_noise=float`: is no instance noise; derive its class from'
    ' `InstanceNoise`',
  ),
  'no pack': (
    lambda: game(objectives.hinge, packing=0),
    '`packing=0`: use 1 or more',
  ),
  'networks of no kind': (
    lambda: Game(lambda z: z, objectives.hinge),
    '`networks=function`: give what `gan_jax.networks.from_linen` and its kin'
    ' make',
  ),
}


@pytest.mark.parametrize('case', GAMES)
def test_games(case):
  make, expected = GAMES[case]
  assert message(make) == expected


TRAINERS = {
  'no game': (
    lambda: Trainer(still(), optimizers.sgd, optimizers.sgd),
    '`game=Networks`: give a `Game`',
  ),
  'a name for an optimizer': (
    lambda: trainer('adam'),
    f'`optimizer_g=adam`: is a name; give the optimizer {NAME}',
  ),
  'a rate for an optimizer': (
    lambda: trainer(d=1e-3),
    f'`optimizer_d=float`: {OPTAX}',
  ),
  'an optimizer that was not called': (
    lambda: trainer(optax.adam),
    f'`optimizer_g=function`: {OPTAX}',
  ),
  'no learning rate': (
    lambda: trainer(optimizers.adam(0.0)),
    '`optimizer_g.learning_rate=0.0`: use more than 0',
  ),
  'a momentum of 1': (
    lambda: trainer(d=optimizers.sgd(beta1=1.0)),
    '`optimizer_d.beta1=1.0`: use 0 or more and less than 1',
  ),
  'a clip to nothing': (
    lambda: trainer(optimizers.sgd(clip=0.0)),
    '`optimizer_g.clip=0.0`: use more than 0, or None for none',
  ),
  'a momentum that does not say when': (
    lambda: trainer(optimizers.sgd(beta1_final=0.9)),
    '`optimizer_g.momentum_steps=0`: give the steps over which `beta1` moves to'
    ' `beta1_final`',
  ),
  'a fall that never arrives': (
    lambda: trainer(
      optimizers.sgd(decay=optimizers.exponential(steps=10, final=0.0))
    ),
    '`optimizer_g.decay.final=0.0`: an exponential fall never reaches 0; use a'
    ' small positive factor',
  ),
  'a name for a schedule': (
    lambda: trainer(optimizers.sgd, optimizers.sgd, 'simultaneous'),
    f'`schedule=simultaneous`: is a name; give the schedule {NAME}',
  ),
  'no update of D': (
    lambda: trainer(
      optimizers.sgd, optimizers.sgd, schedules.alternating(d_steps=0)
    ),
    '`schedule.d_steps=0`: use a whole number of 1 or more',
  ),
  'no half-life': (
    lambda: trainer(
      optimizers.sgd, optimizers.sgd, schedules.alternating, Ema(0.0)
    ),
    '`ema.halflife_kimg=0.0`: use more than 0, or `ema=None` for no average',
  ),
  'one number injected twice': (
    lambda: trainer(
      optax.chain(
        *[
          optax.inject_hyperparams(optax.scale)(step_size=x) for x in (1.0, 2.0)
        ]
      )
    ),
    '`optimizer_g=step_size`: is injected twice, and would be one number; name'
    ' one of them anew',
  ),
}


@pytest.mark.parametrize('case', TRAINERS)
def test_trainers(case):
  make, expected = TRAINERS[case]
  assert message(make) == expected


def networks_of(g=None, d=None, classes=0):
  """Of plain functions, in the plane."""
  g = g or net({'w': jnp.ones(2)}, lambda p, z, label: z * p['w'][None])
  d = d or net({'w': jnp.ones(2)}, lambda p, x, label: x @ p['w'])
  return networks.Networks(g, d, 2, (2,), classes=classes)


def test_an_output_of_the_wrong_shape():
  wide = net({}, lambda p, z, label: jnp.concatenate([z, z], axis=1))
  column = net({}, lambda p, x, label: x[:, :1])
  said = message(Game, networks_of(g=wide), objectives.hinge)
  assert said == (
    '`generator=apply`: its samples are float32 (n, 4), not (n, 2): reshape'
    ' them, or set `sample_shape` to what they are'
  )
  said = message(Game, networks_of(d=column), objectives.hinge)
  assert said == (
    '`discriminator=apply`: its logits are (n, 1): squeeze them to (n,),'
    ' `logits[:, 0]`'
  )


def test_networks_that_can_not_be_compiled_in():
  nets = networks_of()._replace(sample_shape=[2])
  assert message(Game, nets, objectives.hinge) == (
    "`networks=Networks`: cannot be compiled in (unhashable type: 'list'); give"
    ' `sample_shape` as a tuple and functions that can be hashed'
  )


def test_an_optimizer_that_fails_on_these_parameters_says_for_whom():
  masked = optax.masked(optax.sgd(0.1), {'other': True})
  with pytest.raises(Exception) as caught:
    trainer(d=masked)
  note = '(when `optimizer_d` was tried on the parameters that it is to move)'
  assert note in caught.value.__notes__


def test_misspelt_fields_and_paths():
  assert message(R1, wieght=1.0, error=TypeError) == (
    'R1 has no field `wieght`; use `weight`'
  )
  assert message(schedules.simultaneous, d_steps=2, error=TypeError) == (
    'Simultaneous has no field `d_steps`; it has none'
  )
  small = trainer(d=optimizers.sgd(clip=1.0))
  for use in (
    lambda: small.at({'optimizer_g.clip': 1.0}),
    lambda: small.init(jax.random.key(0), {'optimizer_g.clip': 1.0}),
  ):
    assert message(use) == (
      '`optimizer_g.clip=1.0`: no such hyper-parameter; there are'
      ' objective.smoothing, optimizer_g.learning_rate, optimizer_g.beta1,'
      ' optimizer_d.learning_rate, optimizer_d.beta1, optimizer_d.clip,'
      ' ema.halflife_kimg'
    )


def test_a_state_of_another_trainer():
  state, other = trainer_of().init(jax.random.key(0)), trainer_of(ema=Ema())
  said = message(other.step, state, np.zeros((BATCH, 2), np.float32))
  assert said == (
    '`state=State`: has no `ema.halflife_kimg` among its hyper-parameters; it'
    ' was made by another trainer'
  )


X = np.zeros((1, BATCH, 2), np.float32)
LABEL = np.zeros((1, BATCH), np.int32)
TWO = dict(d_steps=2)
BATCHES = {
  'whole numbers': (
    {},
    X.astype(np.uint8),
    '`batch=uint8(1, 8, 2)`: is uint8; a step takes float32, images in [-1, 1]:'
    ' give (x - 127.5) / 127.5',
  ),
  'double precision': (
    {},
    X.astype(np.float64),
    '`batch=float64(1, 8, 2)`: is float64; use float32, as'
    ' `x.astype(np.float32)`',
  ),
  'a dictionary': (
    {},
    {'image': X, 'label': LABEL},
    '`batch=dict of image, label`: is no array; give samples, or a tuple'
    ' (samples, labels)',
  ),
  'rows of several lengths': (
    {},
    [[0.0], [0.0, 1.0]],
    '`batch=list`: is no array; give samples, or a tuple (samples, labels)',
  ),
  'one sample': (
    {},
    X[0, 0],
    '`batch=float32(2,)`: use (1, n, 2), float32',
  ),
  'another shape': (
    {},
    X[..., :1],
    '`batch=float32(1, 8, 1)`: use (1, n, 2), float32',
  ),
  'one batch where two are needed': (
    TWO,
    X[0],
    '`batch=float32(8, 2)`: is one batch, and a step of alternating(d_steps=2)'
    ' takes 2; stack them: (2, n, 2)',
  ),
  'a stack of one where two are needed': (
    TWO,
    X,
    '`batch=float32(1, 8, 2)`: has 1 for k, and a step of'
    ' alternating(d_steps=2) takes 2: use (2, n, 2)',
  ),
  'two where one is needed': (
    {},
    np.concatenate([X, X]),
    '`batch=float32(2, 8, 2)`: has 2 for k, and a step of alternating takes 1:'
    ' use (1, n, 2)',
  ),
  'labels without classes': (
    {},
    (X, LABEL),
    '`batch=(x, labels)`: has labels, and the networks have no classes; give x'
    ' alone, or networks with `classes=...`',
  ),
  'three arrays': (
    {},
    (X, LABEL, LABEL),
    '`batch=a tuple of 3`: give samples, or (samples, labels)',
  ),
}


@pytest.mark.parametrize('case', BATCHES)
def test_batches(case):
  settings, batch, expected = BATCHES[case]
  played = trainer_of(**settings)
  shapes = jax.eval_shape(played.init, jax.random.key(0))
  assert message(played.step, shapes, batch) == expected


CLASSES = {
  'no labels': (
    X,
    '`batch=x`: has no labels, and the networks have 3 classes; give (x,'
    ' labels)',
  ),
  'labels of another count': (
    (X, LABEL[:, :3]),
    '`batch=labels int32(1, 3)`: use whole numbers of shape (1, 8)',
  ),
  'labels that are floats': (
    (X, LABEL.astype(np.float32)),
    '`batch=labels float32(1, 8)`: use whole numbers of shape (1, 8)',
  ),
}


@pytest.mark.parametrize('case', CLASSES)
def test_batches_of_classes(case):
  batch, expected = CLASSES[case]
  played = trainer_of(game=Game(networks_of(classes=3), objectives.hinge))
  shapes = jax.eval_shape(played.init, jax.random.key(0))
  assert message(played.step, shapes, batch) == expected


def test_packs_that_do_not_divide_the_batch():
  played = trainer_of(game=game_of(nets=mlp(3), packing=3))
  shapes = jax.eval_shape(played.init, jax.random.key(0))
  assert message(played.step, shapes, X) == (
    '`batch=float32(1, 8, 2)`: 8 samples are no multiple of `packing=3`; the'
    ' batch counts samples, not packs'
  )


def test_a_regularizer_that_finds_nothing_to_act_on():
  plain = Game(networks_of(), objectives.hinge, [regularizers.orthogonal])
  played = trainer_of(game=plain)
  shapes = jax.eval_shape(played.init, jax.random.key(0))
  assert message(jax.eval_shape, played.step, shapes, X) == (
    '`regularizers=orthogonal`: finds no array named `kernel` among the'
    ' parameters to act on'
  )


def test_populations():
  small = trainer()
  for make, expected in (
    (lambda: population(small, []), '`seeds=[]`: give one or more'),
    (lambda: population(game_of(), [0]), '`trainer=Game`: give a `Trainer`'),
    (
      lambda: population(small, [0], layout='loop'),
      '`layout=loop`: use auto, vmap or map',
    ),
    (
      lambda: population(small, [0, 1], {'optimizer_g.beta1': [0.5]}),
      '`vary=optimizer_g.beta1`: give one number for each of 2 members, not'
      ' (1,)',
    ),
    (
      lambda: population(small, [0, 1], {'optimizer_g.beta1': [0.5, 1.5]}),
      '`optimizer_g.beta1=1.5`: use 0 or more and less than 1',
    ),
    (
      lambda: population(small, [0], {'beta1': [0.5]}),
      '`vary=beta1`: no such hyper-parameter; there are objective.smoothing,'
      ' optimizer_g.learning_rate, optimizer_g.beta1,'
      ' optimizer_d.learning_rate, optimizer_d.beta1, ema.halflife_kimg',
    ),
  ):
    assert message(make) == expected


def test_an_objective_of_no_functions():
  losses = dict(d_loss=jnp.add, g_loss=None, name='mine')
  assert message(objectives.from_losses, **losses) == (
    '`g_loss=None`: give a function of (real, fake) logits'
  )
  losses = dict(d_loss=jnp.add, g_loss=jnp.add, name='my loss')
  assert message(objectives.from_losses, **losses) == (
    '`name=my loss`: use a word of letters, digits and _'
  )
