"""Both losses: whose gradient flows, whose statistics move, what D is shown."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.nets import same
from helpers.toygame import (
  BATCH,
  bare,
  close,
  flat,
  game_of,
  mlp,
  net,
  reals,
  replaced,
  start,
  step,
  step_key,
  stepped,
  still,
  switched,
  trainer_of,
  update_keys,
)

from gan_jax import networks
from gan_jax.game import augment
from gan_jax.game import game as game_lib
from gan_jax.game.game import Batch, Game, InstanceNoise
from gan_jax.game.objectives import OBJECTIVES, Minimax
from gan_jax.game.regularizers import REGULARIZERS, Regularizer
from gan_jax.game.streams import stream

IMAGES = jnp.float32(0)


def largest(tree):
  return float(np.abs(flat(tree)).max())


def images_game(name='dcgan', regularizers=(), **options):
  """Of 8 by 8 pixels."""
  options = dict(width=4, depth=1) | options
  if name != 'mlp':
    options['depth'] = 0
  nets = networks.build(name, (8, 8, 1), bounded=True, **options)
  return Game(nets, Minimax(), [REGULARIZERS[name] for name in regularizers])


@functools.cache
def slopes_of_g(images):
  """`(objective's number, state, real, key) -> to G, to D`, compiled once."""
  nets = (images_game() if images else game_of()).networks

  @jax.jit
  def slopes(index, state, real, key):
    game = Game(nets, switched(index))

    def loss(g_params, d_params):
      now = replaced(state, d=d_params)
      how = dict(images=IMAGES)
      return game_lib.g_loss(game, g_params, now, real, key, **how)[0]

    return jax.grad(loss, (0, 1))(state.g.params, state.d.params)

  return slopes


def begun(game):
  trainer = trainer_of(game=game)
  return bare(trainer.init(jax.random.key(0))), Batch(reals(trainer)[0])


@pytest.mark.parametrize('images', [False, True])
def test_gs_update_has_no_gradient_for_d(images):
  state, real = begun(images_game() if images else game_of())
  slopes = slopes_of_g(images)
  for index, name in enumerate(OBJECTIVES):
    to_g, to_d = slopes(index, state, real, jax.random.key(1))
    assert largest(to_d) == 0.0, name
    assert largest(to_g) > 0.0, name
  assert slopes._cache_size() == 1


def penalised():
  """With penalties that look at samples which G makes for them."""
  return game_of(regularizers=('zcr', 'wgan_gp'), nets=mlp())


@pytest.mark.parametrize('make', [penalised, images_game])
def test_ds_update_has_no_gradient_for_g(make):
  game = make()
  state, real = begun(game)

  @jax.jit
  def slopes(d_params, g_params):
    def loss(d_params, g_params):
      now, key = replaced(state, g=g_params), jax.random.key(1)
      how = dict(images=IMAGES)
      return game_lib.d_loss(game, d_params, now, real, key, **how)[0]

    return jax.grad(loss, (0, 1))(d_params, g_params)

  to_d, to_g = slopes(state.d.params, state.g.params)
  assert largest(to_g) == 0.0
  assert largest(to_d) > 0.0


@pytest.mark.parametrize('player', ['g', 'd'])
def test_a_removed_stop_gradient_would_be_seen(player):
  """The two tests above fail on the losses without their stop-gradient."""
  game = game_of()
  state, real = begun(game)
  loss_of = getattr(game_lib, f'{player}_loss')
  other = 'd' if player == 'g' else 'g'

  @jax.jit
  def slope(params):
    def loss(params):
      now = replaced(state, **{other: params})
      own, key = getattr(state, player).params, jax.random.key(1)
      how = dict(images=IMAGES, frozen=False)
      return loss_of(game, own, now, real, key, **how)[0]

    return jax.grad(loss)(params)

  assert largest(slope(getattr(state, other).params)) > 0.0


def own_stats(game, state, real, key_d, key_g):
  """Statistics of both players after their own updates from one state."""

  @jax.jit
  def moved(state):
    how = dict(images=IMAGES)
    args = state, real
    _, d = game_lib.d_loss(game, state.d.params, *args, key_d, **how)
    _, g = game_lib.g_loss(game, state.g.params, *args, key_g, **how)
    return d.stats, g.stats

  return moved(bare(state))


@pytest.mark.parametrize('schedule', ['alternating', 'simultaneous'])
def test_statistics_move_in_their_own_players_update_alone(schedule):
  """A step's running statistics are those of the own update, and no other."""
  trainer = trainer_of(schedule, game_of(nets=mlp(norm='batch')))
  state, after, _ = stepped(trainer)
  keys = update_keys(state)
  if schedule == 'simultaneous':  # one key: both see the same samples
    keys = [stream(step_key(state), 'both') for _ in range(2)]
  real = Batch(reals(trainer)[0])
  d_stats, g_stats = own_stats(trainer.game, state, real, *keys)
  for found, own, before in (
    (after.d.stats, d_stats, state.d.stats),
    (after.g.stats, g_stats, state.g.stats),
  ):
    assert jax.tree.structure(found) == jax.tree.structure(before)
    assert not same(found, before)
    # D's update came first where they alternate: its statistics are exact.
    close(found, own, rtol=1e-5, atol=1e-6)


COUNT, REAL, FAKE, STD = 60, 3.0, 2.0, 0.1
CLASSES = 3


def watched(seen, objective):
  """A game of plain images, whose D tells what it is given.

  Its statistics are ten times what they were and the mean that it sees.
  """

  def judge(params, stats, x, *, train, key=None, label=None):
    del train, key
    mean = x.mean()
    jax.debug.callback(lambda *told: seen.append(told), x, label)
    return params['w'] * x.mean((1, 2, 3)), {'seen': 10 * stats['seen'] + mean}

  start_d = {'w': jnp.float32(1)}, {'seen': jnp.float32(0)}
  nets = networks.Networks(
    net(
      {'level': jnp.float32(FAKE)},
      lambda p, z, label: jnp.broadcast_to(p['level'], (len(z), 8, 8, 1)),
    ),
    networks.Net(lambda key: start_d, judge),
    1,
    (8, 8, 1),
    classes=CLASSES,
  )
  return Game(
    nets,
    OBJECTIVES[objective],
    augment=[augment.cutout],
    instance_noise=InstanceNoise(STD),
  )


def labelled(seed):
  """Real images of one level, with classes of their own."""
  rng = np.random.default_rng(seed)
  label = jnp.asarray(rng.integers(0, CLASSES, COUNT), jnp.int32)
  return Batch(jnp.full((COUNT, 8, 8, 1), REAL), label)


def level_of(x):
  """What images showed before each lost a square and noise came to them."""
  x = np.asarray(x)
  level = np.round(np.median(x))
  holes = x < level / 2
  assert 0.1 < holes.mean() < 0.25  # four by four of eight by eight, or less
  assert len({hole.tobytes() for hole in holes}) > 10
  noise = x - np.where(holes, 0, level)
  assert noise.std() == pytest.approx(STD, rel=0.05)
  return level


def told(x, label):
  return level_of(x), tuple(np.asarray(label).tolist())


@pytest.mark.parametrize('objective', ['non_saturating', 'relativistic'])
def test_d_is_shown_all_alike_and_with_its_own_labels(objective):
  """Augmented and noised, in both updates; D's statistics see both kinds."""
  seen = []
  game = watched(seen, objective)
  trainer = trainer_of(game=game)
  state = trainer.init(jax.random.key(0))
  batches = [labelled(seed) for seed in range(trainer.real_batches)]
  batch = jax.tree.map(lambda *x: jnp.stack(x), *map(tuple, batches))
  after, _ = step(trainer, state, batch)
  jax.effects_barrier()
  means = {told(x, label): np.mean(x) for x, label in seen}
  fake_d, fake_g = (
    (FAKE, tuple(game_lib.draw(game, COUNT, key).label.tolist()))
    for key in update_keys(state)
  )
  real_d, *real_g = ((REAL, tuple(r.label.tolist())) for r in batches)
  assert means.keys() == {real_d, fake_d, fake_g, *real_g}
  assert len(means) == (4 if objective == 'relativistic' else 3)
  np.testing.assert_allclose(
    after.d.stats['seen'], 10 * means[real_d] + means[fake_d], rtol=1e-5
  )


def test_penalties_view_what_d_was_shown():
  game = watched([], 'non_saturating')
  state = trainer_of(game=game).init(jax.random.key(0))
  real, key = labelled(0), jax.random.key(1)
  drawn = game_lib.draw(game, COUNT, jax.random.clone(key))
  view, _ = game_lib.d_view(
    game, state.d.params, state, real, key, images=IMAGES
  )
  for x, label, level, own in (
    (view.real, view.real_label, REAL, real.label),
    (view.fake, view.fake_label, FAKE, drawn.label),
  ):
    assert told(x, label) == (level, tuple(own.tolist()))


def test_what_g_is_told_of_its_samples():
  """As it made them, with their classes; D saw those as it sees any."""
  seen = []
  game = watched(seen, 'relativistic')
  state = trainer_of(game=game).init(jax.random.key(0))
  real, key = labelled(0), jax.random.key(1)
  drawn = game_lib.draw(game, COUNT, jax.random.clone(key))
  view, *_ = game_lib.g_view(
    game, state.g.params, state, real, key, images=IMAGES
  )
  jax.effects_barrier()
  assert (view.fake == FAKE).all()
  np.testing.assert_array_equal(view.fake_label, drawn.label)
  np.testing.assert_array_equal(view.z, drawn.z)
  assert {told(x, label) for x, label in seen} == {
    (FAKE, tuple(drawn.label.tolist())),
    (REAL, tuple(real.label.tolist())),
  }


def test_noise_and_classes_are_drawn_from_keys_of_their_own(monkeypatch):
  used = []
  for name in ('normal', 'randint', 'bits'):
    draw = getattr(jax.random, name)

    def watch(key, *args, draw=draw, **how):
      if not isinstance(key, jax.core.Tracer):  # of the checks of networks
        used.append(tuple(jax.random.key_data(key).tolist()))
      return draw(key, *args, **how)

    monkeypatch.setattr(jax.random, name, watch)
  game = watched([], 'non_saturating')
  for counts in ((), (9, 1, 1)):
    used.clear()
    how = dict(class_counts=counts, latent=jax.random.normal)
    nets = game.networks._replace(**how)
    game_lib.draw(game.replace(networks=nets), 4, jax.random.key(0))
    assert len(set(used)) == len(used) == 2


def test_a_view_is_of_one_pass_and_can_be_repeated():
  """D's critics have its dropout and its statistics as they were then."""

  def judge(params, stats, x, *, train, key=None, label=None):
    noise = jax.random.uniform(key, (len(x),))
    logits = params['w'] * x[:, 0] + noise + stats['seen']
    return (logits, {'twice': 2 * x}), {'seen': 3 * stats['seen']}

  start_d = {'w': jnp.float32(1)}, {'seen': jnp.float32(1)}
  nets = networks.Networks(
    net({'b': jnp.float32(1)}, lambda p, z, label: z + label[:, None]),
    networks.Net(lambda key: start_d, judge),
    1,
    (1,),
    classes=3,
  )
  game = Game(nets, Minimax(), instance_noise=InstanceNoise(0.5))
  state = trainer_of(game=game).init(jax.random.key(0))
  state = state.replace(step=jnp.int32(4))
  real = Batch(jnp.linspace(0, 1, 6)[:, None], jnp.arange(6) % 3)
  key, how = jax.random.key(1), dict(images=IMAGES)
  drawn = game_lib.draw(game, 6, jax.random.clone(key))
  view, stats = game_lib.d_view(
    game, state.d.params, state, real, jax.random.clone(key), **how
  )
  again = view.critic(view.real, None), view.critic_fake(view.fake, None)
  np.testing.assert_array_equal(again[0], view.real_logits)
  np.testing.assert_array_equal(again[1], view.fake_logits)
  assert (view.fake_logits - view.fake[:, 0] >= 3).all()  # after the real ones
  assert float(stats['seen']) == 9
  np.testing.assert_array_equal(view.generate(view.z), view.fake)
  g_view, _, _ = game_lib.g_view(game, state.g.params, state, real, key, **how)
  np.testing.assert_array_equal(g_view.generate(view.z), g_view.fake)
  np.testing.assert_array_equal(
    g_view.fake, drawn.z + drawn.label[:, None].astype(jnp.float32)
  )
  # With one key both see generated samples alike.
  np.testing.assert_array_equal(g_view.fake_heads['twice'], 2 * view.fake)
  np.testing.assert_array_equal(view.real_heads['twice'], 2 * view.real)
  np.testing.assert_array_equal(view.fake_heads['twice'], 2 * view.fake)
  for one, params in ((view, state.d.params), (g_view, state.g.params)):
    np.testing.assert_array_equal(one.z, drawn.z)
    assert one.params is params and int(one.step) == 4


class Draws(Regularizer):
  """Says what it draws."""

  weight: float = 1.0

  def on_d(self, view):
    return jax.random.uniform(view.key)

  def on_g(self, view):
    return jax.random.uniform(view.key)


class DrawsToo(Draws):
  """The same under another name."""


def test_each_regularizer_draws_from_a_key_of_its_own():
  game = Game(still(), Minimax(), [Draws, DrawsToo])
  state, real = begun(game)
  how = dict(images=IMAGES)
  args = state, real, jax.random.key(1)
  for loss, params in (
    (game_lib.d_loss, state.d.params),
    (game_lib.g_loss, state.g.params),
  ):
    key = jax.random.clone(args[2])
    logs = loss(game, params, state, real, key, **how)[1].logs
    draws = [float(x) for name, x in logs.items() if '/penalty/' in name]
    assert len(set(draws)) == 2


def test_augmentations_are_laid_on_in_their_order():
  """Each by a draw of its own, and the last one last."""
  game = Game(
    networks.build('mlp', (8, 8, 1), bounded=True, width=4, depth=1),
    Minimax(),
    augment=[augment.cutout, augment.color],
  )
  state, _ = begun(game)
  real = Batch(jnp.float32(np.random.default_rng(0).normal(size=(4, 8, 8, 1))))
  key = jax.random.key(1)

  @jax.jit
  def both(key):
    how = dict(images=IMAGES)
    view, _ = game_lib.d_view(game, state.d.params, state, real, key, **how)
    shown = stream(key, 'shown/real')
    holed = augment.Cutout().apply(real.x, stream(shown, 'cutout'))
    return view.real, augment.Color().apply(holed, stream(shown, 'color'))

  found, expected = both(key)
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_generated_classes_are_all_classes_alike():
  game = watched([], 'non_saturating')
  label = game_lib.draw(game, 3000, jax.random.key(0)).label
  counts = np.bincount(np.asarray(label), minlength=CLASSES)
  assert len(counts) == CLASSES and (abs(counts - 1000) < 100).all()


def test_noise_of_ones_own_is_drawn_for_one_sample_at_a_time():
  """Given a shape without the batch, with a key for each sample."""
  draw = lambda key, shape: jax.random.uniform(key, shape, maxval=9.0)
  game = game_of().replace(networks=still()._replace(latent=draw))
  z = game_lib.draw(game, 100, jax.random.key(0)).z
  assert z.shape == (100, game.networks.latent_dim)
  assert len(np.unique(z)) > 0.99 * z.size
  assert 0 <= z.min() < 1 and 8 < z.max() < 9


def test_packs_are_samples_side_by_side():
  x = jnp.arange(24.0).reshape(4, 2, 3, 1)
  packs = game_lib.packed(x, 2)
  assert packs.shape == (2, 2, 3, 2)
  np.testing.assert_array_equal(packs[0, ..., 0], x[0, ..., 0])
  np.testing.assert_array_equal(packs[0, ..., 1], x[1, ..., 0])
  np.testing.assert_array_equal(packs[1, ..., 1], x[3, ..., 0])
  points = jnp.arange(8.0).reshape(4, 2)
  np.testing.assert_array_equal(
    game_lib.packed(points, 2), [[0, 1, 2, 3], [4, 5, 6, 7]]
  )
  assert game_lib.packed(points, 1) is points


def test_instance_noise_falls_in_a_line():
  noise = InstanceNoise(2.0, 0.004)
  found = [noise.std_at(jnp.float32(shown)) for shown in range(6)]
  np.testing.assert_allclose(found, [2, 1.5, 1, 0.5, 0, 0], rtol=1e-6)
  assert float(InstanceNoise(2.0).std_at(jnp.float32(1e6))) == 2.0


def zcr_view(game, state):
  """What a penalty of D sees of points that G makes whatever the noise."""
  still = jax.tree.map(jnp.zeros_like, state.g.params)
  # Far from where it would be, so that each look at a kernel moves its norm.
  turned = jax.tree.map(lambda w: w + 0.1 * jnp.cos(7.0 * w), state.d.params)
  state = replaced(state, g=still, d=turned)
  real = Batch(jax.random.normal(jax.random.key(2), (BATCH, 8, 8, 1)))

  @jax.jit
  def loss(state):
    key = jax.random.key(1)
    how = dict(images=IMAGES)
    return game_lib.d_loss(game, state.d.params, state, real, key, **how)

  return loss(state)[1].logs


def test_zcr_shows_neighbours_as_it_shows_what_they_are_beside():
  """With no distance between them there is nothing to be told apart."""
  game = images_game('mlp', ['zcr']).replace(
    augment=[augment.color, augment.translation, augment.cutout],
    instance_noise=InstanceNoise(0.5),
  )
  logs = zcr_view(game, begun(game)[0])
  np.testing.assert_allclose(logs['d/penalty/zcr'], 0, atol=1e-9)
  assert float(logs['d/logit_fake']) != 0


CONSISTENT = ['cr', 'bcr', 'zcr']


def check_consistency(monkeypatch, game):
  """Nothing where samples are the same to D, however D is looked at."""
  from gan_jax.game import regularizers

  same_view = lambda x, key: x
  monkeypatch.setattr(regularizers, 'consistency_view', same_view)
  logs = zcr_view(game, begun(game)[0])
  assert np.abs(float(logs['d/logit_fake'])) > 0
  for name in CONSISTENT:
    assert logs[f'd/penalty/{name}'] < 1e-9


@pytest.mark.parametrize('norm_d', ['spectral', 'batch'])
def test_consistency_is_of_the_samples_alone(norm_d, monkeypatch):
  """Though D's statistics move at each look."""
  game = images_game('mlp', CONSISTENT, norm_g='none', norm_d=norm_d)
  check_consistency(monkeypatch, game)


@pytest.mark.slow
def test_consistency_is_not_of_dropout(monkeypatch):
  game = images_game('goodfellow2014', CONSISTENT, width=0)
  check_consistency(monkeypatch, game)


def test_penalties_join_the_loss_that_is_descended_and_are_logged():
  """Weighed; and D's loss is logged without them."""
  game, plain = game_of(regularizers=('r1', 'r2')), game_of()
  state, real = begun(game)

  @jax.jit
  def losses(game, state):
    key = jax.random.key(3)
    how = dict(images=IMAGES)
    loss, aux = game_lib.d_loss(game, state.d.params, state, real, key, **how)
    return loss, aux.logs

  total, logs = losses(game, state)
  alone, _ = losses(plain, state)
  added = logs['d/penalty/r1'] + logs['d/penalty/r2']
  assert float(added) > 0
  np.testing.assert_allclose(total, alone + 0.1 * added, rtol=1e-5)
  np.testing.assert_allclose(logs['d/loss'], alone, rtol=1e-6)


def test_beliefs_are_read_off_the_density_ratio():
  """Where D says one; else its output is taken for one."""
  logits = jnp.float32(np.random.default_rng(0).normal(size=(2, 8)))
  sigmoid = lambda t: 1 / (1 + np.exp(-np.float64(t)))
  for name, ratio in (
    ('minimax', lambda t: t),
    ('fgan_kl', lambda t: t - 1),
    ('wasserstein', lambda t: t),
  ):
    kind = OBJECTIVES[name]
    nets = networks.Networks(
      net({}, lambda p, z, label: z[:, :1]),
      net(
        {},
        lambda p, x, label: jnp.where(x[:, 0] > 5, logits[0], logits[1]),
      ),
      1,
      (1,),
    )
    game = Game(nets, kind)
    state = bare(trainer_of(game=game).init(jax.random.key(0)))
    real, key = Batch(jnp.full((8, 1), 9.0)), jax.random.key(1)
    how = dict(images=IMAGES)
    logs = game_lib.d_loss(game, {}, state, real, key, **how)[1].logs
    on_real, on_fake = (sigmoid(ratio(x)) for x in logits)
    v = np.log(on_real).mean() + np.log(1 - on_fake).mean()
    for log, expected in (
      ('d/prob_real', on_real.mean()),
      ('d/prob_fake', on_fake.mean()),
      ('d/logit_real', logits[0].mean()),
      ('d/logit_fake', logits[1].mean()),
      ('game/value', v),
      ('game/jsd_bound', (v + np.log(4)) / 2),
    ):
      np.testing.assert_allclose(logs[log], expected, rtol=1e-4, err_msg=name)


def test_start_of_a_game_is_a_function_of_its_key():
  trainer = trainer_of(game=game_of(nets=mlp()))
  one, _ = start(trainer)
  again, _ = start(trainer)
  other, _ = start(trainer, seed=1)
  assert same(one.g.params, again.g.params)
  assert not same(one.g.params, other.g.params)
