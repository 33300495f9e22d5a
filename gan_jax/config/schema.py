"""`Config`: every option of a run, with default, help, unit, bounds, choices.

A frozen dataclass from which the absl flags are generated; a flagfile is its
printed form, and both read back to an equal `Config`. Every value is validated
with a message that names the argument, the value and the remedy. This module
imports nothing heavy, so that `--help` answers at once.
"""

import dataclasses
import functools
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags

from gan_jax.config import parsing, registry, validate
from gan_jax.config.parsing import INT_MAX
from gan_jax.config.validate import ConfigError as ConfigError
from gan_jax.runtime.errors import ArgumentError

_Registry = tuple[str, str]  # module and name of a dict


def _field(
  default: Any,
  help: str,
  *,
  low: float | None = None,
  above: float | None = None,
  high: float | None = None,
  below: float | None = None,
  choices: tuple[str, ...] | None = None,
  registry: _Registry | None = None,
  words: tuple[_Registry, ...] = (),
  free: bool = False,
  place: bool = False,
  group: str = '',
  path: str = '',
  none: float | None = None,
) -> Any:
  """A documented option.

  Args:
    default: its default, which also gives its type.
    help: full sentences, with the unit and what a default of 0 or '' does.
    low: least value allowed; a whole number has `high` as well.
    above: the value must be greater than this.
    high: greatest value allowed.
    below: the value must be less than this.
    choices: the words allowed.
    registry: whose keys are the words allowed.
    words: registries whose keys its words, separated by commas, begin with.
    free: whether a run may be continued with another value.
    place: whether it names a file or folder.
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
    place=place,
    group=group,
    path=path,
    none=none,
  )
  return dataclasses.field(default=default, metadata=metadata)


_game = functools.partial(_field, group='The game')
_networks = functools.partial(_field, group='Networks')
_optimizers = functools.partial(_field, group='Optimizers')
_data = functools.partial(_field, group='Data')
_looks = functools.partial(_field, group='What is looked at', free=True)
_run = functools.partial(_field, group='The run')

_NORMS = ('gan_jax.networks.layers', 'NORMS')
_OPTIMIZERS = ('gan_jax.game.optimizers', 'OPTIMIZERS')


@dataclasses.dataclass(frozen=True)
class Config:
  """Everything that defines a run. See `--help` for the fields."""

  objective: str = _game(
    'non_saturating',
    'Losses of the two players.',
    registry=('gan_jax.game.objectives', 'OBJECTIVES'),
  )
  schedule: str = _game(
    'alternating',
    "Order of the players' updates within a step.",
    registry=('gan_jax.game.schedules', 'SCHEDULES'),
  )
  d_steps: int = _game(1, 'Updates of D in a step.', low=1, high=10**6)
  g_steps: int = _game(1, 'Updates of G in a step.', low=1, high=10**6)
  unroll_steps: int = _game(
    5,
    'Updates of D that an update of G looks ahead, under --schedule=unrolled.',
    low=1,
    high=10**4,
  )
  consensus: float = _game(
    0.1,
    'Weight of the consensus term, half the squared norm of both gradients'
    ' together, under --schedule=consensus.',
    low=0,
    path='schedule.weight',
  )
  reuse_noise: bool = _game(
    False, 'Whether all updates of a step see one draw of noise.'
  )
  reuse_real: bool = _game(
    False, 'Whether all updates of a step see one batch of real samples.'
  )
  accumulate: int = _game(
    1,
    'Parts that a batch is split into, whose gradients are taken one after'
    ' another and averaged: a batch of --batch_size in the memory of a part.'
    ' Batch normalisation, and losses that compare the samples of a batch, see'
    ' a part at a time, and running statistics move with each.',
    low=1,
    high=2**24,
  )
  regularizer: str = _game(
    '',
    'Regularizers, any number of them with commas between, each'
    ' NAME[@PLACE][:WEIGHT]: r1:10,r2:10 or wgan_gp@real or clip:0.01. A'
    " weight that is left out is its paper's. Empty: none.",
    words=(('gan_jax.game.regularizers', 'REGULARIZERS'),),
  )
  regularizer_every: int = _game(
    1,
    "Steps from one application of D's penalties to the next; each is then"
    ' multiplied by their number (lazy regularization).',
    low=1,
    high=INT_MAX,
  )
  label_smoothing: float = _game(
    0.0,
    'One-sided label smoothing: D is trained with 1 minus this as the label of'
    ' real samples.',
    low=0,
    below=1,
    path='objective.smoothing',
  )
  label_real: float = _game(
    1.0,
    'Label of real samples in the least-squares game (b of its paper).',
    path='objective.real',
  )
  label_fake: float = _game(
    0.0,
    'Label of generated samples in the least-squares game (a of its paper).',
    path='objective.fake',
  )
  label_target: float = _game(
    1.0,
    'Label that G wants its samples to get in the least-squares game (c of its'
    ' paper).',
    path='objective.target',
  )
  instance_noise: float = _game(
    0.0,
    "Standard deviation of the normal noise that is added to D's inputs, real"
    ' and generated. 0: none.',
    low=0,
    path='instance_noise.std',
    none=0.0,
  )
  instance_noise_kimg: float = _game(
    0.0,
    'Thousands of real images over which that noise falls linearly to 0. 0: it'
    ' stays.',
    low=0,
    path='instance_noise.kimg',
  )
  diffaugment: str = _game(
    '',
    'Differentiable augmentations of all images that D sees, with commas'
    ' between: color,translation,cutout. Empty: none.',
    words=(('gan_jax.game.augment', 'AUGMENTATIONS'),),
  )
  packing: int = _game(
    1,
    'Samples that D judges together (PacGAN); a divisor of --batch_size.',
    low=1,
    high=2**20,
  )
  network: str = _networks(
    '',
    'Architecture of G and D. Empty: mlp for densities, dcgan for images.',
    registry=('gan_jax.networks.designs', 'ARCHITECTURES'),
  )
  width: int = _networks(
    0,
    "Base width, in units or channels. 0: the architecture's own.",
    low=0,
    high=2**20,
  )
  depth: int = _networks(
    0,
    'Hidden layers, where their number can be chosen. 0: the'
    " architecture's own.",
    low=0,
    high=1000,
  )
  latent_dim: int = _networks(
    0, "Dimensions of G's noise. 0: the architecture's own.", low=0, high=2**20
  )
  latent: str = _networks(
    '',
    "Distribution of G's noise. Empty: the architecture's own.",
    registry=('gan_jax.networks', 'LATENTS'),
  )
  norm_g: str = _networks(
    '',
    "Normalisation in G. Empty: the architecture's own.",
    registry=_NORMS,
  )
  norm_d: str = _networks(
    '',
    'Normalisation in D; spectral is that of its kernels. Empty: the'
    " architecture's own.",
    registry=_NORMS,
  )
  conditioning: str = _networks(
    'none',
    'How the class of an image enters both networks.',
    registry=('gan_jax.networks', 'CONDITIONINGS'),
  )
  precision: str = _networks(
    'float32',
    "Floating-point type of the networks' computation. Parameters, statistics"
    ' and losses stay float32.',
    choices=('float32', 'bfloat16'),
  )
  matmul_precision: str = _networks(
    'default',
    'How accelerators multiply float32 in training. bfloat16: as fast as they'
    ' can (TF32 on a GPU, one product of bfloat16 on a TPU). tensorfloat32:'
    ' TF32 on a GPU, three products of bfloat16 on a TPU. highest: in float32.'
    ' default: as JAX is set, and that is as fast as they can. A CPU multiplies'
    ' in float32. Samples that are scored, and features, are computed at'
    ' highest.',
    choices=('default', 'bfloat16', 'tensorfloat32', 'highest'),
  )
  optimizer_g: str = _optimizers(
    'adam', 'Optimizer of G.', registry=_OPTIMIZERS
  )
  optimizer_d: str = _optimizers(
    'adam', 'Optimizer of D.', registry=_OPTIMIZERS
  )
  lr_g: float = _optimizers(
    2e-4, 'Learning rate of G.', above=0, path='optimizer_g.learning_rate'
  )
  lr_d: float = _optimizers(
    2e-4, 'Learning rate of D.', above=0, path='optimizer_d.learning_rate'
  )
  beta1_g: float = _optimizers(
    0.5,
    "Decay of the first moment in G's optimizer, or its momentum.",
    low=0,
    below=1,
    path='optimizer_g.beta1',
  )
  beta1_d: float = _optimizers(
    0.5,
    "Decay of the first moment in D's optimizer, or its momentum.",
    low=0,
    below=1,
    path='optimizer_d.beta1',
  )
  beta1_final_g: float = _optimizers(
    0.0,
    'Value that --beta1_g moves to, linearly over --steps. Adam and its kin'
    ' correct their bias as if it had been the present one all along. 0: it'
    ' does not move.',
    low=0,
    below=1,
    path='optimizer_g.beta1_final',
    none=0.0,
  )
  beta1_final_d: float = _optimizers(
    0.0,
    'Value that --beta1_d moves to, linearly over --steps. 0: it does not'
    ' move.',
    low=0,
    below=1,
    path='optimizer_d.beta1_final',
    none=0.0,
  )
  beta2_g: float = _optimizers(
    0.999,
    "Decay of the second moment in G's optimizer.",
    low=0,
    below=1,
    path='optimizer_g.beta2',
  )
  beta2_d: float = _optimizers(
    0.999,
    "Decay of the second moment in D's optimizer.",
    low=0,
    below=1,
    path='optimizer_d.beta2',
  )
  clip_g: float = _optimizers(
    0.0,
    "Global norm that G's gradient is clipped to. 0: no clipping.",
    low=0,
    path='optimizer_g.clip',
    none=0.0,
  )
  clip_d: float = _optimizers(
    0.0,
    "Global norm that D's gradient is clipped to. 0: no clipping.",
    low=0,
    path='optimizer_d.clip',
    none=0.0,
  )
  lr_schedule: str = _optimizers(
    'constant',
    'Decay of both learning rates over the run, to --lr_final of themselves.',
    registry=('gan_jax.game.optimizers', 'DECAYS'),
  )
  lr_warmup: int = _optimizers(
    0,
    'Steps over which both learning rates rise linearly from 0 at the start.',
    low=0,
    high=INT_MAX,
  )
  lr_final: float = _optimizers(
    0.0,
    'Factor that both learning rates have decayed to at the end of the run,'
    ' under a --lr_schedule. exponential needs one of more than 0.',
    low=0,
    high=1,
  )
  ema_halflife_kimg: float = _optimizers(
    10.0,
    "Half-life of the exponential moving average of G's parameters, in"
    ' thousands of real images. 0: no average is kept.',
    low=0,
    path='ema.halflife_kimg',
    none=0.0,
  )
  dataset: str = _data(
    'digits',
    'Training data. Densities: gaussian_1d, mixture_1d, ring, grid, spiral,'
    ' delta, or density:FILE (any in one dimension, a text file of two'
    ' columns, x and p(x)). Images: digits, mnist, fashion_mnist, cifar10,'
    ' stacks of three of them (stacked_digits, stacked_mnist,'
    ' stacked_fashion), another image set of TFDS, a part of one'
    ' (mnist[:50000]), folder:PATH (a folder, .zip or .tar of images), or'
    ' prepared:DIR (what gan_jax.prepare has written with --out).',
  )
  data_dir: str = _data(
    '',
    'Folder of prepared datasets. Empty: $TFDS_DATA_DIR, or'
    ' ~/tensorflow_datasets.',
    free=True,
    place=True,
  )
  image_size: int = _data(
    0,
    'Side in pixels that images are resized and cropped to. 0: as they are.',
    low=0,
    high=2**13,
  )
  channels: int = _data(
    0,
    'Channels that images are converted to: 1 (grey), 3 (colour, what is'
    ' transparent laid on white) or 4 (colour and opacity, of images that have'
    ' it). 0: as they are, those of a folder laid on white.',
    low=0,
    high=4,
  )
  flip: bool = _data(
    False, 'Whether real images are flipped left to right at random.'
  )
  max_megapixels: float = _data(
    50.0,
    'Millions of pixels that an image of folder:PATH may have; one that has'
    ' more is refused before it takes memory (4 bytes a pixel).',
    above=0,
    free=True,
  )
  keep_rows: bool = _data(
    True,
    'Whether the images of folder:PATH are kept in the data root as rows of'
    ' pixels, which later starts open at once, where the disk has twice the'
    ' room for them.',
    free=True,
  )
  class_sampling: str = _data(
    'data',
    'How often G is asked for each class, in training and by scores, under'
    ' --conditioning. data: as often as the training data has it. uniform: for'
    ' all equally often.',
    choices=('data', 'uniform'),
  )
  residence: str = _data(
    'auto',
    'Where the images are kept: in the memory of the device, or on the host,'
    ' which streams them. auto: on the device if they take at most a third of'
    ' what it has free.',
    choices=('auto', 'device', 'stream'),
    free=True,
  )
  log_every: int = _looks(
    100,
    'Steps between two lines of the log, which are means over them.',
    low=1,
    high=INT_MAX,
  )
  sample_every: int = _looks(
    1000,
    'Steps between two sample grids, of one fixed latent batch.',
    low=1,
    high=INT_MAX,
  )
  num_samples: int = _looks(64, 'Samples in a grid.', low=1, high=2**16)
  dynamics_every: int = _looks(
    0,
    "Steps between two analyses of the game's gradient field and the"
    ' eigenvalues of its Jacobian, written to dynamics.jsonl. 0: none.',
    low=0,
    high=INT_MAX,
  )
  metrics: str = _looks(
    '',
    'Metrics that score G in training, with commas between: fid,kid. The'
    ' average of G is scored if there is one, at the last step and every'
    ' --eval_every. Empty: none, and in an ablation those of its kind of data.',
    words=(('gan_jax.metrics', 'METRICS'),),
  )
  eval_every: int = _looks(
    0,
    'Steps between two evaluations by --metrics. 0: the last alone.',
    low=0,
    high=INT_MAX,
  )
  eval_samples: int = _looks(
    10000,
    'Generated samples of an evaluation, and real ones.',
    low=1,
    high=10**7,
  )
  eval_seeds: int = _looks(
    1,
    'Draws of noise over which the scores of an evaluation are means.',
    low=1,
    high=10**4,
  )
  features: str = _looks(
    '',
    'Features of images that --metrics compare: classifier, inception-2048,'
    ' pixels, ... Needed by the metrics that compare features.',
    words=(('gan_jax.features', 'FEATURES'),),
  )
  weights: str = _looks('', 'File of the weights of --features.', place=True)
  keep_best: str = _looks(
    '',
    'One of --metrics: the checkpoint that is best by it is kept besides the'
    ' newest. Empty: the newest alone.',
  )
  report: bool = _looks(
    True, 'Whether report.html is written when the run ends.'
  )
  profile: bool = _looks(
    False,
    'Whether the third dispatch of the process is traced, a few steps, to'
    ' profile/ in the workdir, for Perfetto or TensorBoard.',
  )
  workdir: str = _run(
    '',
    'Folder of the run. It is created, or the run in it is continued.',
    free=True,
    place=True,
  )
  steps: int = _run(
    5000,
    'Steps of the run. A step has --d_steps updates of D and --g_steps of G.',
    low=1,
    high=INT_MAX,
  )
  batch_size: int = _run(
    64,
    'Real and as many generated samples in an update, over all devices.',
    low=1,
    high=2**24,
  )
  seed: int = _run(
    0,
    'Seed of the initial parameters, the noise and the order of the data.',
    low=0,
    high=INT_MAX,
  )
  checkpoint_every: int = _run(
    1000, 'Steps between two checkpoints.', low=1, high=INT_MAX, free=True
  )
  keep_checkpoints: int = _run(
    3,
    'Checkpoints that are kept, the newest ones.',
    low=1,
    high=INT_MAX,
    free=True,
  )
  devices: int = _run(
    0,
    'Devices that the run uses: GPUs, TPU cores or CPUs. 0: all of them.',
    low=0,
    high=2**20,
    free=True,
  )
  deterministic: str = _run(
    'auto',
    'Whether a run that is started again on a GPU goes on to the same bits:'
    ' kernels without atomic operations, and those that XLA picked at the first'
    ' start, which the workdir holds. auto: yes, unless JAX computes already.'
    ' CPUs and TPUs give the same bits in any case.',
    choices=('auto', 'on', 'off'),
    free=True,
  )
  multihost: bool = _run(
    False,
    'Whether to join the other processes of this job by jax.distributed, which'
    ' finds Slurm, Cloud TPU and the variables of launch/local.py by itself.',
    free=True,
  )
  save_deadline: int = _run(
    60,
    'Seconds from a signal, or from when another process of the job is missed,'
    ' within which a process has saved what it holds and ended. 0: it waits for'
    ' the others.',
    low=0,
    high=86_400,
    free=True,
  )
  compilation_cache: str = _run(
    '~/.cache/gan_jax/xla',
    'Folder in which compiled programs are kept from one run to the next. off:'
    ' they are not kept.',
    free=True,
    place=True,
  )

  def __post_init__(self) -> None:
    """Puts the home folder in the place of `~`, a network in that of none.

    That of the data, once: with other data, `dataclasses.replace` keeps it
    unless it is told `network=''` as well.
    """
    if self.workdir.startswith('~'):
      workdir = os.path.expanduser(self.workdir)
      object.__setattr__(self, 'workdir', workdir)
    if not self.network:
      object.__setattr__(
        self, 'network', validate.suitable_network(self.dataset)
      )

  def validate(self) -> 'Config':
    """Returns self.

    Raises:
      ConfigError: naming each argument that is of no use, value and remedy.
    """
    problems = [
      problem
      for field in dataclasses.fields(self)
      for problem in validate.problems(
        field, getattr(self, field.name), choices(field.name)
      )
    ]
    problems += validate.contradictions(self)
    if problems:
      raise ConfigError(*problems)
    return self


FIELDS = {field.name: field for field in dataclasses.fields(Config)}


def choices(name: str) -> tuple[str, ...]:
  """Words that a field takes; empty when it takes any."""
  metadata = FIELDS[name].metadata
  if metadata['registry']:
    return registry.names(*metadata['registry'])
  return metadata['choices'] or ()


def words(name: str) -> tuple[str, ...]:
  """Words that a field is made of: its choices, or the names in its list."""
  lists = (registry.names(*r) for r in FIELDS[name].metadata['words'])
  return (*choices(name), *(word for names in lists for word in names))


def traced() -> tuple[str, ...]:
  """Fields that set a hyper-parameter, an argument of the compiled step."""
  return tuple(name for name, f in FIELDS.items() if f.metadata['path'])


def static(config: Config) -> Config:
  """What of a configuration is compiled: the same for one program's members.

  Hyper-parameters are at their defaults, or 1 where a part of the step is there
  that could be absent; the weights of regularizers, the seed and the folder are
  left out.
  """
  changes: dict[str, Any] = {}
  for name in traced():
    none = FIELDS[name].metadata['none']
    given = float(getattr(config, name) != none)
    changes[name] = FIELDS[name].default if none is None else given
  terms = [
    f'{p.name}@{p.place}' for p in validate.penalties(config.regularizer)
  ]
  return dataclasses.replace(
    config, **changes, regularizer=','.join(terms), seed=0, workdir=''
  )


_DEFINE: dict[type, Any] = {
  bool: flags.DEFINE_boolean,
  str: flags.DEFINE_string,
  list: flags.DEFINE_multi_string,
}


class Flag(NamedTuple):
  """A flag of a command.

  Attributes:
    default: its default; a type stands for none.
    help: full sentences.
    low: least number allowed.
    high: greatest number allowed.
    place: whether it names a file or folder.
  """

  default: Any
  help: str
  low: float | None = None
  high: float | None = None
  place: bool = False


def define(
  table: Mapping[str, Flag],
  flag_values: flags.FlagValues = flags.FLAGS,
  *,
  checked: bool = True,
) -> None:
  """Defines absl flags.

  Args:
    table: flags by name.
    flag_values: where they are defined.
    checked: whether strings are checked as they are parsed.
  """
  for name, (default, text, low, high, place) in table.items():
    kind = default if isinstance(default, type) else type(default)
    default = None if default is kind else default
    if kind in (int, float):
      parsing.define_number(kind, name, default, text, low, high, flag_values)
    elif kind is str and checked:
      parsing.define_text(name, default, text, place, flag_values)
    else:
      _DEFINE[kind](name, default, text, flag_values=flag_values)


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines one absl flag for each field of `Config`.

  Their bounds are checked by `Config.validate`, all of them together.
  """
  table = {n: Flag(f.default, f.metadata['help']) for n, f in FIELDS.items()}
  define(table, flag_values, checked=False)


def from_flags(
  complete: Callable[[Config], Config] | None = None,
  flag_values: flags.FlagValues = flags.FLAGS,
) -> Config:
  """The validated `Config` that the parsed flags say.

  Args:
    complete: fills in what a command has other defaults for.
    flag_values: that were parsed.
  """
  values: dict[str, Any] = {name: flag_values[name].value for name in FIELDS}
  config = Config(**values)
  return (complete(config) if complete else config).validate()


def from_args(args: Sequence[str]) -> Config:
  """The `Config` of command-line words, `--flagfile=` among them.

  Raises:
    ConfigError: for an unknown flag, a value of another type, a bad value.
  """
  flag_values = flags.FlagValues()
  define_flags(flag_values)
  try:
    rest = flag_values(['gan_jax', *parsing.expand_flagfiles(args)])[1:]
  except ArgumentError as error:
    raise ConfigError(error) from error
  except flags.Error as error:
    raise ConfigError(str(error)) from error
  if rest:
    raise ConfigError(f'{rest[0]}: not a flag; write --name=value')
  return from_flags(flag_values=flag_values)


def to_args(config: Config) -> list[str]:
  """`--name=value` for every field, such that `from_args` gives it back."""
  words = []
  for name in FIELDS:
    value = getattr(config, name)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    words.append(f'--{name}={text}')
  return words


class DamagedConfig(ConfigError):
  """A flagfile that does not have the checksum it was written with."""


_SEAL = '# crc32 '  # a comment: whoever edits the file may remove it


def format_flagfile(config: Config) -> str:
  """A flagfile, with a checksum of its lines in the first."""
  text = parsing.format_flagfile(to_args(config))
  return f'{_SEAL}{zlib.crc32(text.encode()):08x}\n{text}'


def load_flagfile(path: str | os.PathLike[str]) -> Config:
  """The `Config` of a flagfile, such as a workdir's `config.flags`.

  Raises:
    DamagedConfig: if it has another checksum than it says.
    ConfigError: as `from_args`.
  """
  with open(path, 'rb') as file:
    content = file.read()
  seal, _, text = content.partition(b'\n')
  sealed = seal.startswith(_SEAL.encode())
  if sealed and seal != f'{_SEAL}{zlib.crc32(text):08x}'.encode():
    raise DamagedConfig(f'{os.fspath(path)}: damaged, or edited by hand')
  try:
    return from_args([f'--flagfile={os.fspath(path)}'])
  except (ConfigError, UnicodeDecodeError, SystemExit) as error:
    if sealed:
      raise
    raise DamagedConfig(f'{os.fspath(path)}: {error}') from error


def read_config(workdir: str | os.PathLike[str]) -> Config:
  """The `Config` of the run in a workdir.

  Raises:
    ConfigError: if the folder holds no run.
  """
  config = load_flagfile(validate.config_file(os.fspath(workdir)))
  return dataclasses.replace(config, workdir=os.fspath(workdir))


_OF_CONTENT = ('dataset', 'image_size', 'channels')


def may_be_same_data(name: str, was: Any, now: Any) -> bool:
  """Whether two values of `dataset`, `image_size` or `channels` may be alike.

  A path has many spellings and may have moved, a set and its split may have
  the same images, prepared rows may be of any set, and 0 may be what was given.

  >>> may_be_same_data('dataset', 'folder:x', 'folder:/data/x/')
  True
  >>> may_be_same_data('dataset', 'digits', 'mnist')
  False
  >>> may_be_same_data('dataset', 'mnist[:100]', 'prepared:rows')
  True
  """
  if name != 'dataset':
    return not was or not now
  stems = []
  for text in (was, now):
    kind, colon, _ = text.partition(':')
    is_path = colon and kind in ('folder', 'density', 'prepared')
    stems.append(kind if is_path else text.partition('[')[0])
  return bool(stems[0] == stems[1] or 'prepared' in stems)


def difference(old: Config, new: Config) -> list[str]:
  """Arguments in which `new` is another run than `old`, one line each.

  Fields marked free (places, cadences, devices) make no difference to what is
  computed. `steps` may grow as long as no learning-rate schedule and no moving
  momentum depends on it. Spellings that may be of the same data are left to its
  content, which the identity of a run holds.
  """
  moving = new.beta1_final_g or new.beta1_final_d
  fixed = new.lr_schedule != 'constant' or moving
  lines = []
  for name, field in FIELDS.items():
    was, now = getattr(old, name), getattr(new, name)
    longer = name == 'steps' and not fixed and now >= was
    if name in _OF_CONTENT and may_be_same_data(name, was, now):
      continue
    if was != now and not field.metadata['free'] and not longer:
      lines.append(
        f'`{name}`: {was} there, {now} now{_hint(name, bool(fixed))}'
      )
  return lines


def _hint(name: str, fixed: bool) -> str:
  if name != 'steps':
    return ''
  return '; a schedule depends on them' if fixed else '; they may only grow'
