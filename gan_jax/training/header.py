"""The header that a run prints before it starts: data, networks, devices."""

import collections
from collections.abc import Sequence
from typing import Any


def format_data(
  *,
  data: str,
  size: int,
  sample_shape: Sequence[int],
  classes: int,
  counts: Sequence[int] = (),
  notes: Sequence[str] = (),
) -> str:
  """Lines about the training data, as a header begins with them.

  Args:
    data: its name.
    size: its samples; 0 for a density, which has no end of them.
    sample_shape: of one sample: (height, width, channels), or (dimensions,).
    classes: of its labels; 0 where it has none.
    counts: samples of each class, where they are known.
    notes: further lines.

  >>> print(
  ...   format_data(
  ...     data='folder:cats',
  ...     size=40,
  ...     sample_shape=(8, 8, 3),
  ...     classes=0,
  ...     notes=['left out: 1 .txt file'],
  ...   )
  ... )
  data: folder:cats, 40 images of 8x8x3
    left out: 1 .txt file
  """
  shape = 'x'.join(map(str, sample_shape))
  if len(sample_shape) == 3:
    samples = f'{size:,} images of {shape}'
  else:
    dimensions = f'{shape} dimension{"s" * (shape != "1")}'
    samples = f'{size:,} points' if size else 'a density'
    samples += f' in {dimensions}'
  if classes:
    samples += f' in {classes} classes'
  if counts:
    samples += f' of {min(counts):,} to {max(counts):,}'
  return '\n'.join([f'data: {data}, {samples}', *(f'  {x}' for x in notes)])


def format_header(
  *,
  network: str,
  parameters: tuple[int, int],
  devices: Sequence[str],
  products: str = 'float32',
  deterministic: bool = True,
  processes: int = 1,
  **data: Any,
) -> str:
  """A few lines about a run.

  Args:
    network: name of the architecture.
    parameters: of G and of D.
    devices: kind of each device.
    products: what they make of products of float32.
    deterministic: whether they give the same bits each time.
    processes: of the job.
    **data: as `format_data` takes it.

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
  kinds = collections.Counter(devices)
  lines = [
    format_data(**data),
    f'networks: {network}, G of {parameters[0]:,} and D of {parameters[1]:,}'
    ' parameters',
    'devices: '
    + ', '.join(f'{count} {kind}' for kind, count in kinds.items())
    + (f' in {processes} processes' if processes > 1 else '')
    + (f', products in {products}' if products != 'float32' else '')
    + ('' if deterministic else ', not the same bits each time'),
  ]
  return '\n'.join(lines)
