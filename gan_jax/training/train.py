"""Training from start to end: from the command line and from Python."""

import contextlib
import dataclasses
import os
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import jax

from gan_jax import data as data_lib
from gan_jax.config import app, registry, resolve
from gan_jax.config.resolve import TRAINER_GROUPS
from gan_jax.config.schema import FIELDS, Config
from gan_jax.game.trainer import Trainer
from gan_jax.networks.base import Networks
from gan_jax.runtime import (
  backend,
  determinism,
  multihost,
  numerics,
  places,
  preemption,
  store,
  terminal,
)
from gan_jax.runtime.checkpoint import not_saved
from gan_jax.runtime.errors import ArgumentError, Error, IdentityError
from gan_jax.runtime.files import write_atomic
from gan_jax.runtime.progress import format_duration
from gan_jax.runtime.provenance import (
  environment,
  machine,
  machine_difference,
  now,
)
from gan_jax.runtime.quiet import quiet_libraries
from gan_jax.training import identity as identity_lib
from gan_jax.training import memory, remote
from gan_jax.training import setup as setup_lib
from gan_jax.training import workdir as workdir_lib
from gan_jax.training.goodput import process_age
from gan_jax.training.header import format_header
from gan_jax.training.restore import (
  GENERATOR,
  Run,
  export_generator,
  run_in_memory,
)
from gan_jax.training.run_loop import RunLoop
from gan_jax.training.setup import (
  OWN_DATA,
  Setup,
  diverged_advice,
)

_LARGE = 2**26  # bytes of a set of which it is said where it lives


_CACHES = ('gs', 's3')  # the schemes under which JAX keeps programs


def _find_cache(config: Config) -> str:
  """The folder or URL of the compilation cache.

  Raises:
    ArgumentError: if it can be none.
  """
  cache = config.compilation_cache
  scheme = places.scheme_of(cache)
  if scheme:
    if scheme not in _CACHES:
      remedy = 'JAX keeps programs under gs://, s3:// or in a folder alone'
      raise ArgumentError('compilation_cache', cache, remedy)
    store.Store(cache, 'compilation_cache')  # whether its package is there
    return cache
  if cache.startswith('~/'):
    cache = str(places.below_home(cache))
  cache = os.path.expanduser(cache)
  if os.path.exists(cache) and not os.path.isdir(cache):
    raise ArgumentError(
      'compilation_cache',
      config.compilation_cache,
      'is no folder; name one, or use off',
    )
  return cache


def join_job(config: Config) -> None:
  """Joins the job's other processes, and finds the compilation cache.

  Raises:
    ArgumentError: if there is no job to join, or the cache is no folder.
  """
  if config.compilation_cache not in ('off', ''):
    jax.config.update('jax_compilation_cache_dir', _find_cache(config))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  if config.multihost and not jax.distributed.is_initialized():
    try:
      jax.distributed.initialize()
    except ValueError as error:
      raise ArgumentError(
        'multihost',
        True,
        f'no job to join was found ({error}); start through launch/, or use'
        ' `multihost=false`',
      ) from error
    except RuntimeError as error:
      raise Error(
        '`multihost=true`: the other processes of the job could not be joined'
        f' ({str(error).splitlines()[0]}); see that all of them were started'
        ' and reach the first one'
      ) from error


def prepare_back_end(config: Config, part: str = '') -> None:
  """Sets XLA, and looks for devices.

  Args:
    config: whose options say how; its workdir is on this machine.
    part: of the processes that work in one folder without joining.

  Raises:
    Error: if JAX has no device, or not those of the other processes.
  """
  determinism.request(config.deterministic, config.workdir, part)
  backend.check_devices()
  if config.multihost:
    multihost.check_together()


def prepare_process(config: Config, part: str = '') -> None:
  """`join_job` and `prepare_back_end`."""
  join_job(config)
  prepare_back_end(config, part)


def train_config(config: Config) -> int:
  """Trains as the command line says; returns an exit code of `app`.

  Raises:
    ArgumentError, DataError, IdentityError, CheckpointError, StoreAway: whose
      messages name the option or file and the remedy.
  """
  config.validate()
  workdir_lib.check(config)  # before JAX is looked for
  try:
    with preemption.listen():
      join_job(config)
    # Anew: jax.distributed has put a handler of its own in the place of ours.
    with preemption.listen() as listener, remote.held(config, listener) as here:
      workdir_lib.check(here)
      prepare_back_end(here)
      trained = _train(setup_lib.build(here), listener, whole=True)
  except preemption.Stopped as stopped:
    _report_stop(stopped)
    return app.SAVED
  codes = {'done': app.DONE, 'saved': app.SAVED, 'diverged': app.DIVERGED}
  return codes[trained.outcome]


def _report_stop(stopped: preemption.Stopped) -> None:
  terminal.tell(
    f'stopped by {stopped} while there was nothing to save; run the same'
    ' command again',
    sys.stderr,
  )


class Trained:
  """What came of a training: its end and its last state."""

  def __init__(self, loop: RunLoop, outcome: str) -> None:
    """Of a loop that has ended."""
    self.outcome, self.step, self.state = outcome, loop.step, loop.state
    self.facts = dict(loop.run_file.facts)


def _train(
  setup: Setup, listener: preemption.Listener, whole: bool = False
) -> Trained:
  """Trains; `whole`: all that this process does is for this run."""
  config = setup.config
  memory.check(setup)
  own = identity_lib.identify(setup)
  _check_identity(config, own)
  with workdir_lib.held(config) as folder:
    loop = None
    try:
      loop = RunLoop(setup, folder, process_age() if whole else 0.0)
      workdir_lib.claim(config)
      return _conduct(loop, own, listener)
    except OSError as error:
      raise not_saved(folder, error) from error
    finally:
      if loop is not None:
        # Closed before, unless something else is already being raised.
        with contextlib.suppress(Error, OSError):
          loop.close()


def _check_identity(config: Config, own: identity_lib.Identity) -> None:
  """Refuses to go on as another run, and processes that differ.

  Raises:
    IdentityError: a line for each difference.
  """
  program = str(own.get('program', own.get('given')))
  if not multihost.all_equal(program):
    raise IdentityError(
      'the processes of this job have traced different steps: start all of'
      ' them with the same code and options'
    )
  facts = workdir_lib.RunFile(pathlib.Path(config.workdir)).facts
  if 'identity' in facts:
    place = f'`workdir={config.workdir}`'
    warning = identity_lib.check(place, facts['identity'], own)
    if warning and multihost.is_primary():
      app.warn(warning)
    other = machine_difference(facts.get('machine'), machine())
    if other and multihost.is_primary():
      app.warn(
        f'{place}: was computed on another machine so far ({other}); what comes'
        ' now may differ in its last bits from what would have come there'
      )


def _references(setup: Setup) -> dict[str, str]:
  """Where the networks of a run are to be found again."""
  name = setup.config.network
  if registry.is_reference(name):
    return {'networks': name}
  if 'network' in setup.objects or 'trainer' in setup.objects:
    return {'networks': GENERATOR}
  return {}


def _write_generator(setup: Setup, loop: RunLoop) -> None:
  """Exports a G that has no name, for those who open the run."""
  if not _references(setup) or not loop.primary:
    return
  try:
    content = export_generator(setup.networks)
  except Exception as error:  # of anybody's networks, of many kinds
    app.warn(
      f'G could not be exported ({type(error).__name__}: {error}); to open this'
      ' run, hand its networks in'
    )
    return
  write_atomic(loop.folder / GENERATOR, content)


def _conduct(
  loop: RunLoop, own: identity_lib.Identity, listener: preemption.Listener
) -> Trained:
  """Runs a loop and writes down how it ended."""
  run_file = loop.run_file
  done = loop.step >= loop.config.steps
  try:
    lost = 'identity' not in run_file.facts
    if not done or lost:
      _write_start(loop, own)
    if loop.step:
      loop.progress.say(f'continuing at step {loop.step}')
    if done and loop.config.profile:
      loop.warn(
        f'`profile=true`: the run is done, and nothing was traced; use more'
        f' `steps` than {loop.step} or another `workdir`'
      )
    if done and loop.scorer:  # of a run that was done before
      loop.evaluate()
    outcome = 'done' if done else loop.run(listener)
  except preemption.Stopped as stopped:  # nothing is new since the last
    if not done:
      run_file.update(outcome='saved', step=loop.step, finished=now())
      loop.record_goodput()
    _report_stop(stopped)
    return Trained(loop, 'saved')
  facts: dict[str, Any] = {'outcome': outcome, 'step': loop.step}
  if loop.trained_sec:
    facts['data_wait'] = round(loop.waited / loop.trained_sec, 4)
  if not done or lost:
    facts |= {'finished': now(), 'train_sec': round(loop.train_sec, 3)}
    loop.record_goodput()
  if outcome == 'diverged':
    facts['not_finite'] = loop.bad
  run_file.update(**facts)
  trained = Trained(loop, outcome)
  loop.close()
  if loop.primary:
    _report_end(loop, outcome)
  return trained


def _write_start(loop: RunLoop, own: identity_lib.Identity) -> None:
  """Writes and says what is about to be trained."""
  setup, run_file = loop.setup, loop.run_file
  run_file.update(
    **environment(),
    **setup_lib.describe(setup),
    products=_products(setup),
    deterministic=determinism.in_force(),
    identity=own,
    references=_references(setup),
    objects=sorted(setup.objects),
    generator={
      'classes': setup.networks.classes,
      'class_counts': list(setup.networks.class_counts),
    },
    started=run_file.facts.get('started', now()),
    outcome='running',
  )
  loop.record_goodput()
  if loop.step == 0:
    _write_generator(setup, loop)
  loop.progress.say(_header(loop))


def _products(setup: Setup) -> str:
  return numerics.describe_products(
    setup.trainer.matmul_precision, setup.mesh.devices.flat[0]
  )


def _header(loop: RunLoop) -> str:
  setup = loop.setup
  facts = setup_lib.describe(setup)
  name = setup.config.network
  if _references(setup):
    name = 'own networks'
  return format_header(
    data=setup.dataset.name,
    size=facts['dataset']['size'] or 0,
    sample_shape=facts['dataset']['shape'],
    classes=len(facts['dataset']['classes']),
    counts=facts['dataset'].get('class_counts', ()),
    notes=_notes(setup),
    network=name,
    parameters=tuple(facts['parameters'].values()),
    devices=[str(d.device_kind) for d in setup.mesh.devices.flat],
    products=_products(setup),
    deterministic=determinism.in_force(),
    processes=jax.process_count(),
  )


def _notes(setup: Setup) -> list[str]:
  """Lines about the data: what was read, and where a large set lives."""
  notes = list(getattr(setup.dataset, 'notes', ()))
  if setup.residence and getattr(setup.dataset, 'nbytes', 0) >= _LARGE:
    notes.append(setup.residence)
  return notes


def _report_end(loop: RunLoop, outcome: str) -> None:
  """Writes the report and tells the user where everything is."""
  folder, config = loop.folder, loop.config
  if outcome == 'saved':
    terminal.tell(
      f'saved at step {loop.step} of {config.steps} in {folder}; run the same'
      ' command again to continue',
      sys.stderr,
    )
    return
  if config.report:
    from gan_jax.training.report import write_report

    terminal.tell(f'report: {write_report(folder)}', sys.stdout)
  if outcome == 'diverged':
    advice = diverged_advice(loop.setup, loop.step, loop.bad, loop.checkpoints)
    terminal.tell(f'error: {app.as_flags(advice)}', sys.stderr)
    return
  terminal.tell(
    f'done: {loop.step} steps, {format_duration(loop.train_sec)} of training,'
    f' in {folder}',
    sys.stdout,
  )


# From Python.


@quiet_libraries()
def train(
  workdir: str | os.PathLike[str],
  *,
  data: Any = None,
  trainer: Trainer | None = None,
  steps: int | None = None,
  batch_size: int = 64,
  seed: int = 0,
  metrics: Any = (),
  identity: str = '',
  **options: Any,
) -> Run:
  """Trains one GAN; continues the run that it finds in the folder.

  Args:
    workdir: folder of the run, or its URL (`s3://bucket/runs/1`).
    data: uint8 images (n, height, width, channels), float32 images in [-1, 1]
      or points (n, dim), a pair of them and labels, a `Density`, a source with
      `__len__` and `__getitem__`, a `grain.MapDataset`, or a name as
      `dataset`.
    trainer: in the place of the one that the options describe.
    steps: of the run; to continue a run that is done, give more.
    batch_size: real and as many generated samples in an update.
    seed: of the initial parameters, the noise and the order of the data.
    metrics: names or `Metric` objects that score G, at the end and every
      `eval_every` steps.
    identity: a word that you vouch for, in the place of the hash of the step by
      which a run knows that it is still the same one.
    **options: flags of `gan_jax.train` by name; those that describe a game take
      names or objects (`objective='hinge'`, `network=my_networks`).

  Returns:
    The run, at its last step; `outcome` says how it ended. A run that diverged
    or was stopped is returned, too.

  Raises:
    ArgumentError: naming the argument that is of no use.
    IdentityError: if the folder holds another run; nothing is written.
    DataError: if the data cannot be used.

  >>> import gan_jax as gj
  >>> run = gj.train('runs/1', data=images, objective='hinge', steps=5000)
  ... # doctest: +SKIP
  """
  if data is None and 'dataset' not in options:
    raise ArgumentError('data', None, 'give the data, or name a `dataset`')
  config, objects = parse_options(
    dict(options, workdir=workdir, batch_size=batch_size, seed=seed)
    | ({} if steps is None else {'steps': steps})
    | ({'metrics': metrics} if metrics else {}),
    trainer,
  )
  dataset, config = resolve_data(data, config, options, _classes(objects))
  workdir_lib.check(config)
  join_job(config)
  with preemption.listen() as listener, remote.held(config, listener) as here:
    workdir_lib.check(here)
    prepare_back_end(here)
    setup = setup_lib.build(
      here, objects, dataset=dataset, trainer=trainer, given=identity
    )
    if isinstance(data, tuple) and not (setup.networks.classes or metrics):
      remedy = (
        'the networks have no classes; give x alone, networks with'
        " `classes=...`, or `conditioning='projection'`"
      )
      raise ArgumentError('data', '(x, labels)', remedy)
    trained = _train(setup, listener)
  run = run_in_memory(setup, trained.step, trained.state, trained.facts)
  if here is not config:
    run = dataclasses.replace(run, config=config)
  return run


# What a call from Python does only when it is asked to.
_QUIETER = {'report': False, 'compilation_cache': 'off'}


def parse_options(
  given: Mapping[str, Any], trainer: Trainer | None
) -> tuple[Config, dict[str, Any]]:
  """Options as a `Config` and objects.

  Raises:
    ArgumentError: for one that has no say beside a trainer.
  """
  if trainer is None:
    return resolve.split_options(_QUIETER | dict(given))
  if not isinstance(trainer, Trainer):
    raise ArgumentError('trainer', type(trainer).__name__, 'give a `Trainer`')
  for name in given:
    if name in FIELDS and FIELDS[name].metadata['group'] in TRAINER_GROUPS:
      raise ArgumentError(
        name,
        given[name],
        'belongs to the trainer, which was handed in; give it to that',
      )
  config, objects = resolve.split_options(_QUIETER | dict(given))
  return config, {**objects, 'trainer': trainer}


def _classes(objects: Mapping[str, Any]) -> int:
  """Classes of networks that were handed in; 0 where the data says."""
  trainer, networks = objects.get('trainer'), objects.get('network')
  if trainer is not None:
    networks = trainer.game.networks
  return networks.classes if isinstance(networks, Networks) else 0


# Options that say where data of a name are, and how its images are read.
OF_NAMED_DATA = (
  *('data_dir', 'image_size', 'channels', 'max_megapixels', 'keep_rows'),
)


def resolve_data(
  data: Any, config: Config, options: Mapping[str, Any], classes: int = 0
) -> tuple[Any, Config]:
  """The data that was handed in, or None for that of the configuration."""
  if data is None:
    return None, config
  if 'dataset' in options:
    remedy = '`data` was handed in, too; leave one of them out'
    raise ArgumentError('dataset', options['dataset'], remedy)
  network = config.network if 'network' in options else ''
  if isinstance(data, str):
    return None, dataclasses.replace(config, dataset=data, network=network)
  for name in OF_NAMED_DATA:
    if name in options:
      remedy = '`data` was handed in: convert it before, and leave this out'
      raise ArgumentError(name, options[name], remedy)
  dataset = data_lib.as_dataset(data, classes=classes)
  kind = network or ('dcgan' if len(dataset.shape) == 3 else 'mlp')
  name = f'{OWN_DATA}{dataset.name}'
  return dataset, dataclasses.replace(config, dataset=name, network=kind)


__all__ = [
  'parse_options',
  'prepare_process',
  'resolve_data',
  'train',
  'train_config',
]
