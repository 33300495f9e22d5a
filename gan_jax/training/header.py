"""The header that a run prints before it starts: data, networks, devices."""

import collections
from collections.abc import Sequence


def format_header(
  *,
  data: str,
  size: int,
  sample_shape: Sequence[int],
  classes: int,
  counts: Sequence[int] = (),
  notes: Sequence[str] = (),
  network: str,
  parameters: tuple[int, int],
  devices: Sequence[str],
  processes: int = 1,
) -> str:
  """A few lines about a run.

  Args:
    data: name of the training data.
    size: its samples; 0 for a density, which has no end of them.
    sample_shape: of one sample: (height, width, channels), or (dimensions,).
    classes: of its labels; 0 where it has none.
    counts: samples of each class, where they are known.
    notes: further lines about the data.
    network: name of the architecture.
    parameters: of G and of D.
    devices: kind of each device.
    processes: of the job.

  >>> print(
  ...   format_header(
  ...     data='digits',
  ...     size=1797,
  ...     sample_shape=(8, 8, 1),
  ...     classes=10,
  ...     network='dcgan',
  ...     parameters=(463104, 132225),
  ...     devices=['cpu', 'cpu'],
  ...   )
  ... )
  data: digits, 1,797 images of 8x8x1 in 10 classes
  networks: dcgan, G of 463,104 and D of 132,225 parameters
  devices: 2 cpu
  """
  shape = 'x'.join(map(str, sample_shape))
  if len(sample_shape) == 3:
    samples = f'{size:,} images of {shape}'
  else:
    dimensions = f'{shape} dimension{"s" * (shape != "1")}'
    samples = f'{size:,} points' if size else 'a density'
    samples += f' in {dimensions}'
  kinds = collections.Counter(devices)
  if classes:
    samples += f' in {classes} classes'
  if counts:
    samples += f' of {min(counts):,} to {max(counts):,}'
  lines = [
    f'data: {data}, {samples}',
    *(f'  {note}' for note in notes),
    f'networks: {network}, G of {parameters[0]:,} and D of {parameters[1]:,}'
    ' parameters',
    'devices: '
    + ', '.join(f'{count} {kind}' for kind, count in kinds.items())
    + (f' in {processes} processes' if processes > 1 else ''),
  ]
  return '\n'.join(lines)
