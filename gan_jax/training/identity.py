"""Identity: how a run knows that it is still the same run.

What was declared (names, hyper-parameters, static fields), what the data holds,
the settings of JAX that change numbers, and a hash of the step as it is traced,
which sees what has no name: closures, captured arrays, helpers, the numbers of
Optax. `run.json` holds all of it.
"""

import dataclasses
import hashlib
import re
from typing import Any

import jax
import numpy as np

from gan_jax.data.samples import without_times
from gan_jax.game.classes import describe_sampling
from gan_jax.game.component import Component, hyperparameters
from gan_jax.runtime import numerics, provenance
from gan_jax.runtime.errors import IdentityError
from gan_jax.training.setup import Setup

_ADDRESS = re.compile(r'0x[0-9a-f]+')
Identity = dict[str, Any]


def declared(setup: Setup) -> dict[str, Any]:
  """Path to value of all that a run says of itself."""
  values: dict[str, Any] = {}
  _describe('', setup.trainer, values)
  for path, value in hyperparameters(setup.trainer).items():
    values[path] = float(np.float32(value))
  config, networks = setup.config, setup.networks
  values |= {
    'batch_size': config.batch_size,
    'seed': config.seed,
    'flip': config.flip,
    'latent_dim': networks.latent_dim,
    'sample_shape': list(networks.sample_shape),
    'latent': _name(networks.latent),
    'classes': networks.classes,
    **describe_sampling(networks.classes, networks.class_counts),
  }
  return dict(sorted(values.items()))


def _describe(path: str, x: Any, values: dict[str, Any]) -> None:
  """Classes and static fields of a tree of components."""
  if isinstance(x, Component):
    values[path or 'trainer'] = x.name
    for field in dataclasses.fields(x):  # type: ignore[arg-type]
      value = getattr(x, field.name)
      inner = '.'.join(
        w for w in (path, field.name) if w and w not in ('game',)
      )
      if isinstance(value, (Component, dict)):
        _describe(inner, value, values)
      elif not field.metadata.get('pytree_node', True):
        if field.name != 'networks':
          values[inner] = _name(value)
  elif isinstance(x, dict):
    for name, value in x.items():
      _describe(f'{path}.{name}', value, values)


def _name(value: Any) -> Any:
  """A static value as records have it: functions by name, arrays by hash."""
  if value is None or isinstance(value, (bool, int, float, str)):
    return value
  if isinstance(value, np.ndarray | jax.Array):
    return hashlib.sha256(np.asarray(value).tobytes()).hexdigest()[:16]
  if isinstance(value, tuple) and hasattr(value, '_fields'):
    return type(value).__name__
  if isinstance(value, (tuple, list)):
    return [_name(v) for v in value]
  return getattr(value, '__qualname__', type(value).__qualname__)


def program(setup: Setup) -> str:
  """SHA-256 of the step as it is traced, hyper-parameters as arguments.

  Of the text of its jaxpr, addresses masked, and the bytes of every array that
  it holds. No mesh is in it: the number of devices is free to change.
  """
  n, k = setup.config.batch_size, setup.trainer.real_batches
  networks = setup.networks
  x = jax.ShapeDtypeStruct((k, n, *networks.sample_shape), np.float32)
  label = jax.ShapeDtypeStruct((k, n), np.int32)
  batch = (x, label) if networks.classes else x
  closed = jax.make_jaxpr(setup.step)(setup.shapes, batch)
  total = hashlib.sha256(_ADDRESS.sub('', str(closed.jaxpr)).encode())
  for array in _arrays(closed):
    total.update(np.asarray(array).tobytes())
  return total.hexdigest()


def _arrays(closed: Any) -> list[Any]:
  """All constants of a traced program, those of inner ones too."""
  arrays = [c for c in closed.consts if hasattr(c, 'dtype')]
  for equation in closed.jaxpr.eqns:
    for value in equation.params.values():
      inner = value if isinstance(value, (tuple, list)) else [value]
      for x in inner:
        if hasattr(x, 'consts') and hasattr(x, 'jaxpr'):
          arrays += _arrays(x)
  return [x for x in arrays if not _is_key(x)]


def _is_key(x: Any) -> bool:
  return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def versions() -> dict[str, Any]:
  """What the hash of a program depends on besides the program."""
  return {
    **provenance.versions(),
    'commit': provenance.commit(),
    'platform': jax.default_backend(),
  }


def identify(setup: Setup) -> Identity:
  """The identity of a run, as run.json holds it."""
  own: Identity = {
    'declared': declared(setup),
    'data': setup.feed.fingerprint,
    'data_name': setup.dataset.name,  # for messages
    'numerics': numerics.settings(),
    'versions': versions(),
  }
  if setup.given:
    return own | {'given': setup.given}
  return own | {'program': program(setup)}


def check(place: str, saved: Identity, now: Identity) -> str:
  """Refuses to go on as another run.

  Args:
    place: the folder, for the message.
    saved: what run.json there says.
    now: what this run is.

  Returns:
    A warning, where the program could not be compared; mostly ''.

  Raises:
    IdentityError: a line for each difference.
  """
  saved_values, own_values = saved.get('declared', {}), now['declared']
  lines = [
    f'  {path}: {saved_values.get(path, "nothing")} there,'
    f' {own_values.get(path, "nothing")} now'
    for path in sorted({*saved_values, *own_values})
    if saved_values.get(path) != own_values.get(path)
  ]
  there, here = str(saved.get('data')), str(now['data'])
  if without_times(there) != without_times(here):
    names = (saved.get('data_name', ''), now.get('data_name', ''))
    lines.append(f'  data: {names[0]} {there} there, {names[1]} {here} now')
  if saved.get('given', '') != now.get('given', ''):
    was, is_now = saved.get('given', ''), now.get('given', '')
    lines.append(f'  identity: {was!r} there, {is_now!r} now')
  settings = numerics.differences(saved.get('numerics', {}))
  lines += [f'  {line}' for line in settings]
  same_versions = saved.get('versions') == now['versions']
  differs = saved.get('program') != now.get('program')
  if not lines and differs and same_versions:
    lines.append(
      '  program: the step is another one (a function, a captured array or a'
      ' number without a name was changed)'
    )
  if lines:
    raise IdentityError(
      f'{place}: holds another run:\n'
      + '\n'.join(lines)
      + '\nUse another workdir, or what that run was made of.'
    )
  if differs:
    return (
      f'{place}: was begun with other versions, with which its step cannot be'
      ' compared; what was declared and the data agree'
    )
  return ''


__all__ = ['Identity', 'check', 'declared', 'identify', 'program']
