"""Memory of a run, estimated from shapes before anything large is made.

Only what is certain is counted, so that nothing is refused that would fit:
parameters and optimizer states, the samples of one step, a snapshot. What
activations and the compiler take is known, and looked at, when the program is
compiled.
"""

import math
from typing import Any

import jax

from gan_jax.runtime.backend import require_memory
from gan_jax.training.setup import Setup


def _bytes(tree: Any) -> int:
  """Bytes of arrays, or of shapes and types."""
  leaves = [x for x in jax.tree.leaves(tree) if hasattr(x.dtype, 'itemsize')]
  return sum(math.prod(x.shape) * x.dtype.itemsize for x in leaves)


def check(setup: Setup, members: int = 1) -> None:
  """Refuses a run, or members of a population on a device, that cannot fit.

  Raises:
    ArgumentError: naming the option that is too large.
  """
  config, networks = setup.config, setup.networks
  state = members * _bytes(setup.shapes)
  sizes = [name for name in ('width', 'latent_dim') if getattr(config, name)]
  argument: str = 'network'
  if sizes:
    argument = max(sizes, key=lambda name: getattr(config, name))
  what = 'parameters and the state of their optimizers'
  require_memory(argument, getattr(config, argument), state, what)
  sample = 4 * math.prod(networks.sample_shape)
  batches = setup.trainer.real_batches
  rows = members * config.batch_size * max(sample, 4 * networks.latent_dim)
  argument = 'd_steps' if batches > config.batch_size else 'batch_size'
  value, what = getattr(config, argument), 'samples of one step'
  require_memory(argument, value, state + rows * batches, what)
  if setup.dataset.bounded:
    grid = members * config.num_samples * sample
    what = 'the grid of samples'
    require_memory('num_samples', config.num_samples, grid, what, host=True)


def check_program(setup: Setup, program: Any, state: Any) -> int:
  """Refuses a compiled program that the device cannot hold.

  Before any data are read, which count as what is still to come.

  Args:
    setup: what it trains.
    program: compiled: all that its arrays and the compiler's take is known.
    state: what is on the devices already, as shapes of what one of them has.

  Returns:
    Bytes that it needs on a device.

  Raises:
    ArgumentError: with the numbers and what may be made smaller.
  """
  sizes = program.memory_analysis()
  if sizes is None:  # of a back end that does not tell
    return 0
  needed = int(
    sizes.argument_size_in_bytes
    + sizes.output_size_in_bytes
    - sizes.alias_size_in_bytes
    + sizes.temp_size_in_bytes
  )
  what = (
    'the compiled step (accumulate, a smaller width, precision=bfloat16 and'
    ' residence=stream make it smaller, too)'
  )
  argument, value = 'batch_size', setup.config.batch_size
  require_memory(argument, value, needed, what)
  require_memory(argument, value, needed - _bytes(state), what, free=True)
  return needed


__all__ = ['check', 'check_program']
