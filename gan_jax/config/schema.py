"""The one home of every option: default, help, unit, bounds, choices.

`Config` is a frozen dataclass; the absl flags are generated from it, a flagfile
is its printed form, and both read back to an equal `Config`. Every value is
validated with a message that names the flag, the value and the remedy. This
module imports nothing heavy, so that `--help` answers at once.
"""

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Any

from absl import flags

from gan_jax.config import registry, validate
from gan_jax.config.validate import ConfigError as ConfigError


def _field(
  default: Any,
  help: str,
  *,
  low: float | None = None,
  above: float | None = None,
  high: float | None = None,
  below: float | None = None,
  choices: tuple[str, str] | tuple[str, ...] | None = None,
  registry: tuple[str, str] | None = None,
  words: tuple[str, str] | None = None,
  free: bool = False,
  group: str = '',
  path: str = '',
  none: float | None = None,
) -> Any:
  """A documented option.

  Args:
    default: its default, which also gives its type.
    help: one sentence, with the unit.
    low: least value allowed.
    above: the value must be greater than this.
    high: greatest value allowed.
    below: the value must be less than this.
    choices: the words allowed.
    registry: (module, dict) whose keys are the words allowed.
    words: (module, dict) whose keys its words, separated by commas, begin with.
    free: whether a run may be continued with another value.
    group: heading of `--help` under which it stands.
    path: of the hyper-parameter that it sets, `objective.smoothing`; '' for a
      flag that is compiled in.
    none: the value that stands for "not given": what the hyper-parameter
      belongs to is then no part of the compiled step; None if there is none.
  """
  metadata = dict(
    help=help,
    low=low,
    above=above,
    high=high,
    below=below,
    choices=choices,
    registry=registry,
    words=words,
    free=free,
    group=group,
    path=path,
    none=none,
  )
  return dataclasses.field(default=default, metadata=metadata)


_game = functools.partial(_field, group='The game')
_networks = functools.partial(_field, group='Networks')
_optimizers = functools.partial(_field, group='Optimizers')
_data = functools.partial(_field, group='Data')
_looks = functools.partial(_field, group='What is looked at')
_run = functools.partial(_field, group='The run')

_OPTIMIZERS = ('gan_jax.game.optimizers', 'OPTIMIZERS')


@dataclasses.dataclass(frozen=True)
class Config:
  """Everything that defines a run. See `--help` for the fields."""

  workdir: str = _run(
    '', 'folder of the run: created, or continued if it exists', free=True
  )
  dataset: str = _data(
    'digits',
    'a density (gaussian_1d, mixture_1d, ring, grid, spiral, delta, or any'
    ' other in one dimension: density:FILE, a text file of two columns, x and'
    ' p(x)),'
    ' digits, mnist, fashion_mnist, cifar10, stacks of three of them'
    ' (stacked_digits, stacked_mnist, stacked_fashion), another TFDS image set,'
    ' a part of one (mnist[:50000]), or folder:PATH',
  )
  network: str = _networks(
    '',
    'architecture of G and D; empty: mlp for densities, dcgan for images',
    registry=('gan_jax.networks.designs', 'ARCHITECTURES'),
  )
  objective: str = _game(
    'non_saturating',
    'the game that is played',
    registry=('gan_jax.game.objectives', 'OBJECTIVES'),
  )
  schedule: str = _game(
    'alternating',
    "order of the players' moves",
    registry=('gan_jax.game.schedules', 'SCHEDULES'),
  )
  d_steps: int = _game(1, "D's moves in a step", low=1)
  g_steps: int = _game(1, "G's moves in a step", low=1)
  unroll_steps: int = _game(
    5, "D's moves that G looks ahead under --schedule=unrolled", low=1
  )
  consensus: float = _game(
    0.1,
    "weight of the field's length under --schedule=consensus",
    low=0,
    path='schedule.weight',
  )
  reuse_noise: bool = _game(False, 'one draw of noise for all moves of a step')
  reuse_real: bool = _game(False, 'one real batch for all moves of a step')
  steps: int = _run(5000, 'steps: rounds of moves, one of G by default', low=1)
  batch_size: int = _run(
    64, 'samples of each kind in one move, over all devices', low=1
  )
  seed: int = _run(
    0, 'of initialisation, noise and data order', low=0, high=2**31 - 1
  )
  label_smoothing: float = _game(
    0.0,
    'one-sided: real samples are labelled 1 minus this',
    low=0,
    below=1,
    path='objective.smoothing',
  )
  label_real: float = _game(
    1.0, 'b of the least-squares game', path='objective.real'
  )
  label_fake: float = _game(
    0.0, 'a of the least-squares game', path='objective.fake'
  )
  label_target: float = _game(
    1.0, "c of the least-squares game, G's target", path='objective.target'
  )
  regularizer: str = _game(
    '',
    'any number of name[@place][:weight], with commas: r1:10,r2:10 or'
    " wgan_gp@real or clip:0.01. A weight left out is its paper's",
    words=('gan_jax.game.regularizers', 'REGULARIZERS'),
  )
  regularizer_every: int = _game(
    1,
    "steps from one application of D's penalties to the next, each that much"
    ' heavier (lazy regularization)',
    low=1,
  )
  diffaugment: str = _game(
    '',
    'augmentations of all that D sees, with commas: color,translation,cutout',
    words=('gan_jax.game.augment', 'AUGMENTATIONS'),
  )
  packing: int = _game(
    1, 'samples that D judges together (PacGAN), of --batch_size', low=1
  )
  conditioning: str = _networks(
    'none',
    "how both networks are told an image's class",
    registry=('gan_jax.networks', 'CONDITIONINGS'),
  )
  instance_noise: float = _game(
    0.0,
    "deviation of the normal noise added to D's inputs",
    low=0,
    path='instance_noise.std',
    none=0.0,
  )
  instance_noise_kimg: float = _game(
    0.0,
    'thousands of images over which that noise falls to 0; 0: constant',
    low=0,
    path='instance_noise.kimg',
  )
  width: int = _networks(0, "base width; 0: the architecture's own", low=0)
  depth: int = _networks(
    0, "hidden layers, where variable; 0: the architecture's own", low=0
  )
  latent_dim: int = _networks(
    0, "dimensions of G's noise; 0: the architecture's own", low=0
  )
  latent: str = _networks(
    '',
    "distribution of G's noise; empty: the architecture's own",
    registry=('gan_jax.networks', 'LATENTS'),
  )
  norm_g: str = _networks(
    '',
    "G's normalisation; empty: the architecture's own",
    registry=('gan_jax.networks.layers', 'NORMS'),
  )
  norm_d: str = _networks(
    '',
    "D's normalisation (spectral: of its kernels); empty: the architecture's"
    ' own',
    registry=('gan_jax.networks.layers', 'NORMS'),
  )
  precision: str = _networks(
    'float32',
    'of the computation; parameters, statistics and losses stay float32',
    choices=('float32', 'bfloat16'),
  )
  optimizer_g: str = _optimizers('adam', "G's optimizer", registry=_OPTIMIZERS)
  optimizer_d: str = _optimizers('adam', "D's optimizer", registry=_OPTIMIZERS)
  lr_g: float = _optimizers(
    2e-4, "G's learning rate", above=0, path='optimizer_g.learning_rate'
  )
  lr_d: float = _optimizers(
    2e-4, "D's learning rate", above=0, path='optimizer_d.learning_rate'
  )
  beta1_g: float = _optimizers(
    0.5,
    "G's first decay, or its momentum",
    low=0,
    below=1,
    path='optimizer_g.beta1',
  )
  beta1_d: float = _optimizers(
    0.5,
    "D's first decay, or its momentum",
    low=0,
    below=1,
    path='optimizer_d.beta1',
  )
  beta1_final_g: float = _optimizers(
    0.0,
    'what --beta1_g moves to, linearly over --steps; 0: it stays. Adam and its'
    ' kin correct their bias as if it had been the present one all along',
    low=0,
    below=1,
    path='optimizer_g.beta1_final',
    none=0.0,
  )
  beta1_final_d: float = _optimizers(
    0.0,
    'the same of --beta1_d',
    low=0,
    below=1,
    path='optimizer_d.beta1_final',
    none=0.0,
  )
  beta2_g: float = _optimizers(
    0.999, "G's second decay", low=0, below=1, path='optimizer_g.beta2'
  )
  beta2_d: float = _optimizers(
    0.999, "D's second decay", low=0, below=1, path='optimizer_d.beta2'
  )
  clip_g: float = _optimizers(
    0.0,
    "global norm that G's gradient is clipped to; 0: no clipping",
    low=0,
    path='optimizer_g.clip',
    none=0.0,
  )
  clip_d: float = _optimizers(
    0.0,
    "global norm that D's gradient is clipped to; 0: no clipping",
    low=0,
    path='optimizer_d.clip',
    none=0.0,
  )
  lr_schedule: str = _optimizers(
    'constant',
    'fall of both learning rates over the run',
    registry=('gan_jax.game.optimizers', 'DECAYS'),
  )
  lr_warmup: int = _optimizers(
    0, 'steps over which the learning rates rise linearly', low=0
  )
  lr_final: float = _optimizers(
    1.0, "the rates' factor at the end of their fall", low=0, high=1
  )
  ema_halflife_kimg: float = _optimizers(
    10.0,
    "half-life of the average of G's parameters, in thousands of real images"
    ' shown; 0: no average',
    low=0,
    path='ema.halflife_kimg',
    none=0.0,
  )
  data_dir: str = _data(
    '', 'data root; empty: $TFDS_DATA_DIR or ~/tensorflow_datasets', free=True
  )
  image_size: int = _data(
    0, "side in pixels, resized and cropped to; 0: the set's own", low=0
  )
  channels: int = _data(
    0, "1: grey, 3: colour, converted to; 0: the set's own", low=0, high=3
  )
  flip: bool = _data(False, 'flip real images left to right at random')
  residence: str = _data(
    'auto',
    'where the images live; auto: on the device when they take 2 GiB or less',
    choices=('auto', 'device', 'stream'),
    free=True,
  )
  log_every: int = _looks(
    100, 'steps between two lines of the log', low=1, free=True
  )
  sample_every: int = _looks(
    1000, 'steps between two sample grids', low=1, free=True
  )
  dynamics_every: int = _looks(
    0,
    "steps between two looks at the game's vector field and its"
    ' eigenvalues, which go to dynamics.jsonl; 0: none',
    low=0,
    free=True,
  )
  checkpoint_every: int = _run(
    1000, 'steps between two checkpoints', low=1, free=True
  )
  keep_checkpoints: int = _run(
    3, 'checkpoints kept, the newest ones', low=1, free=True
  )
  # Scores in training; python -m gan_jax.evaluate gives them afterwards.
  metrics: str = _looks(
    '',
    'scores of G, the averaged one if there is one, with commas: fid,kid. The'
    ' final state is scored, and others every --eval_every',
    free=True,
  )
  eval_every: int = _looks(
    0,
    'steps between two scores by --metrics; 0: at the end alone',
    low=0,
    free=True,
  )
  eval_samples: int = _looks(
    10000, 'generated and real samples of a score', low=1, free=True
  )
  eval_seeds: int = _looks(
    1, 'draws of noise that a score is the mean of', low=1, free=True
  )
  features: str = _looks(
    '',
    'what metrics see of an image: classifier, inception-2048, pixels, ...',
    free=True,
  )
  weights: str = _looks('', 'file of the weights of --features', free=True)
  keep_best: str = _looks(
    '',
    'one of --metrics: the checkpoint that is best by it is kept besides the'
    ' newest',
    free=True,
  )
  num_samples: int = _looks(64, 'samples in a grid', low=1, free=True)
  report: bool = _run(True, 'write report.html when the run ends', free=True)
  devices: int = _run(
    0, 'devices used by this run; 0: all there are', low=0, free=True
  )
  multihost: bool = _run(
    False,
    'join the other processes of this job through jax.distributed, which finds'
    ' Slurm, Cloud TPU and the variables of launch/local.py by itself',
    free=True,
  )
  compilation_cache: str = _run(
    '~/.cache/gan_jax/xla',
    'folder of compiled programs kept between runs; off: none',
    free=True,
  )

  def __post_init__(self) -> None:
    """Puts the network that suits the data in the place of none.

    Once: with other data, `dataclasses.replace` keeps it unless it is told
    `network=''` as well.
    """
    if not self.network:
      object.__setattr__(
        self, 'network', validate.suitable_network(self.dataset)
      )

  def validate(self) -> 'Config':
    """Returns self.

    Raises:
      ConfigError: naming each flag that is of no use, its value, the remedy.
    """
    problems = [
      problem
      for field in dataclasses.fields(self)
      for problem in validate.problems(
        field, getattr(self, field.name), choices(field.name)
      )
    ]
    defaults = {name: field.default for name, field in FIELDS.items()}
    problems += validate.contradictions(self, defaults)
    if problems:
      raise ConfigError('\n'.join(problems))
    return self


FIELDS = {field.name: field for field in dataclasses.fields(Config)}


def choices(name: str) -> tuple[str, ...]:
  """Words that the flag `name` takes; empty when it takes any."""
  metadata = FIELDS[name].metadata
  if metadata['registry']:
    return registry.names(*metadata['registry'])
  return metadata['choices'] or ()


def traced() -> tuple[str, ...]:
  """Flags that set a hyper-parameter, an argument of the compiled step."""
  return tuple(name for name, f in FIELDS.items() if f.metadata['path'])


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines one absl flag for each field of `Config`."""
  define: dict[type, Any] = {
    bool: flags.DEFINE_boolean,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
  }
  for name, field in FIELDS.items():
    text = field.metadata['help']
    words = field.metadata['words']
    listed = registry.names(*words) if words else choices(name)
    if listed:
      text += f' <{"|".join(listed)}>'
    define[type(field.default)](
      name, field.default, text, flag_values=flag_values
    )


def from_flags(flag_values: flags.FlagValues = flags.FLAGS) -> Config:
  """The validated `Config` that the parsed flags say."""
  values: dict[str, Any] = {name: flag_values[name].value for name in FIELDS}
  return Config(**values).validate()


def from_args(args: Sequence[str]) -> Config:
  """The `Config` of command-line words, `--flagfile=` among them.

  Raises:
    ConfigError: for an unknown flag, a value of another type, a bad value.
  """
  flag_values = flags.FlagValues()
  define_flags(flag_values)
  try:
    rest = flag_values(['gan_jax', *args])[1:]
  except flags.Error as error:
    raise ConfigError(str(error)) from error
  if rest:
    raise ConfigError(f'{rest[0]}: not a flag; write --name=value')
  return from_flags(flag_values)


def to_args(config: Config) -> list[str]:
  """`--name=value` for every field, such that `from_args` gives it back."""
  words = []
  for name in FIELDS:
    value = getattr(config, name)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    words.append(f'--{name}={text}')
  return words


def load_flagfile(path: str | os.PathLike[str]) -> Config:
  """The `Config` of a flagfile, such as a workdir's `config.flags`."""
  return from_args([f'--flagfile={os.fspath(path)}'])


def difference(old: Config, new: Config) -> list[str]:
  """Flags in which `new` is another run than `old`, one line each.

  Fields marked free (places, cadences, devices) make no difference to what is
  computed. `--steps` may grow as long as no learning-rate schedule and no
  moving momentum depends on it.
  """
  moving = new.beta1_final_g or new.beta1_final_d
  fixed = new.lr_schedule != 'constant' or moving
  lines = []
  for name, field in FIELDS.items():
    was, now = getattr(old, name), getattr(new, name)
    longer = name == 'steps' and not fixed and now >= was
    if was != now and not field.metadata['free'] and not longer:
      lines.append(f'--{name}: {was} there, {now} now')
  return lines
