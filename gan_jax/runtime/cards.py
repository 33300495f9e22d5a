"""Accelerators as their data sheets describe them, and as XLA wants them.

Peaks are those of dense products; data sheets of NVIDIA print twice as much,
for sparse ones. What a launch costs is in no data sheet: it is of the order
that is measured between two small kernels of one stream. A TPU runs its program
without launches.

References: NVIDIA H100, H200, A100 and L4 data sheets; Google Cloud, TPU v5e,
v5p and v6e; OpenXLA, `xla/backends/gpu/target_config/specs`.
"""

import dataclasses
import re
from typing import Any

from gan_jax.runtime.errors import ArgumentError
from gan_jax.runtime.names import suggest

_T = 1e12
_LAUNCH = 2.5e-6


@dataclasses.dataclass(frozen=True)
class Card:
  """One device.

  Attributes:
    name: by which it is called here.
    title: by which its maker calls it.
    platform: of JAX: `cuda` or `tpu`.
    memory: bytes.
    share: of it that JAX takes, unless it is told otherwise.
    bandwidth: of the memory, bytes a second.
    link: to the other devices of its host, or of its slice, bytes a second in
      one direction.
    network: to those of other hosts.
    launch: seconds that a kernel costs beside its work.
    bfloat16: operations a second in products of it; float16 is as fast.
    default: in products of float32 at JAX's default precision: TF32 on a GPU,
      bfloat16 on a TPU.
    float32: in those at the highest precision, and in all other arithmetic.
    float64: in 64 bits.
    xla: what XLA wants to know of a GPU.
  """

  name: str
  title: str
  platform: str
  memory: int
  share: float
  bandwidth: float
  link: float
  network: float
  launch: float
  bfloat16: float
  default: float
  float32: float
  float64: float
  xla: str = ''

  def peak(self, dtype: str, *, product: bool, exact: bool = False) -> float:
    """Operations a second.

    Args:
      dtype: as HLO calls it, `f32`.
      product: whether they are those of a matrix product or a convolution.
      exact: whether it is asked for at the highest precision.
    """
    if dtype in ('f64', 'c128'):
      return self.float64
    if not product or (dtype == 'f32' and exact):
      return self.float32
    return self.default if dtype == 'f32' else self.bfloat16


def _xla(title: str, **numbers: Any) -> str:
  """`GpuTargetConfig` of an NVIDIA card, as text."""
  shared = dict(
    threads_per_block_limit=1024,
    threads_per_warp=32,
    shared_memory_per_block=49152,
    block_dim_limit_x=2147483647,
    block_dim_limit_y=65535,
    block_dim_limit_z=65535,
    registers_per_core_limit=65536,
    registers_per_block_limit=65536,
  )
  major, minor = numbers.pop('capability')
  lines = [f'  {name}: {value}' for name, value in (shared | numbers).items()]
  lines += [f'  cuda_compute_capability {{ major: {major} minor: {minor} }}']
  return '\n'.join(
    [
      'gpu_device_info {',
      *lines,
      '}',
      'platform_name: "CUDA"',
      'dnn_version_info { major: 9 minor: 10 patch: 0 }',
      f'device_description_str: "{title}"',
    ]
  )


_HOPPER: dict[str, Any] = dict(
  shared_memory_per_core=233472,
  shared_memory_per_block_optin=232448,
  threads_per_core_limit=2048,
  core_count=132,
  fpus_per_core=128,
  l2_cache_size=52428800,
  clock_rate_ghz=1.98,
  capability=(9, 0),
)


def _gpu(
  name: str,
  title: str,
  *,
  peaks: tuple[float, float, float, float],
  memory: int,
  bandwidth: int,
  link: float,
  **xla: Any,
) -> Card:
  """A card; `peaks` in bfloat16, TF32, float32 and float64, TFLOP/s."""
  bfloat16, tf32, float32, float64 = (_T * peak for peak in peaks)
  return Card(
    name=name,
    title=title,
    platform='cuda',
    memory=memory,
    share=0.75,  # XLA_PYTHON_CLIENT_MEM_FRACTION
    bandwidth=bandwidth,
    link=link,
    network=50e9,  # a port of 400 Gbit/s for each card
    launch=_LAUNCH,
    bfloat16=bfloat16,
    default=tf32,
    float32=float32,
    float64=float64,
    xla=_xla(
      title, memory_bandwidth=bandwidth, device_memory_size=memory, **xla
    ),
  )


def _tpu(
  name: str, gib: int, bandwidth: float, bfloat16: float, link: float
) -> Card:
  """A chip; a product of float32 at the highest precision is six passes."""
  return Card(
    name=name,
    title=f'TPU {name}',
    platform='tpu',
    memory=gib * 2**30,
    share=1.0,
    bandwidth=bandwidth,
    link=link,
    network=link,  # a slice is one network of its own
    launch=0.0,
    bfloat16=bfloat16,
    default=bfloat16,
    float32=bfloat16 / 6,
    float64=bfloat16 / 100,  # emulated
  )


CARDS = {
  card.name: card
  for card in (
    _gpu(
      'h100',
      'NVIDIA H100 80GB HBM3',
      peaks=(989, 495, 67, 34),
      memory=84942979072,
      bandwidth=3352320000000,
      link=450e9,
      **_HOPPER,
    ),
    _gpu(
      'h200',
      'NVIDIA H200 141GB HBM3e',
      peaks=(989, 495, 67, 34),
      memory=151397597184,
      bandwidth=4800000000000,
      link=450e9,
      **_HOPPER,
    ),
    _gpu(
      'a100',
      'NVIDIA A100-SXM4-80GB',
      peaks=(312, 156, 19.5, 9.7),
      memory=85100068864,
      bandwidth=2039040000000,
      link=300e9,
      shared_memory_per_core=167936,
      shared_memory_per_block_optin=166912,
      threads_per_core_limit=2048,
      core_count=108,
      fpus_per_core=64,
      l2_cache_size=41943040,
      clock_rate_ghz=1.41,
      capability=(8, 0),
    ),
    _gpu(
      'l4',
      'NVIDIA L4',
      peaks=(121, 60, 30.3, 0.5),
      memory=24152899584,
      bandwidth=300096000000,
      link=32e9,
      shared_memory_per_core=102400,
      shared_memory_per_block_optin=101376,
      threads_per_core_limit=1536,
      core_count=58,
      fpus_per_core=128,
      l2_cache_size=50331648,
      clock_rate_ghz=2.04,
      capability=(8, 9),
    ),
    _tpu('v5e', 16, 819e9, 197 * _T, 200e9),
    _tpu('v5p', 95, 2765e9, 459 * _T, 600e9),
    _tpu('v6e', 32, 1640e9, 918 * _T, 400e9),
  )
}


@dataclasses.dataclass(frozen=True)
class Target:
  """What a program is compiled for.

  Attributes:
    text: as it was written: `h100:2x4`.
    card: of each device.
    shape: hosts and cards of each; of a TPU the chips of its slice.
  """

  text: str
  card: Card
  shape: tuple[int, ...]

  @property
  def hosts(self) -> int:
    """Over which a collective leaves a host; a slice is one network."""
    return self.shape[0] if self.card.platform == 'cuda' else 1


def parse_target(text: str) -> Target:
  """A target from its name.

  `h100` is one card, `h100:4` four in one host, `h100:2x4` two hosts of four;
  `v5e:2x4` is a slice of eight chips.

  Raises:
    ArgumentError: for an unknown card or shape.

  >>> parse_target('h100:2x4').shape
  (2, 4)
  """
  name, _, shape = text.partition(':')
  if name not in CARDS:
    raise ArgumentError('compile_for', text, suggest(name, [*CARDS]))
  card, sizes = CARDS[name], shape.split('x') if shape else []
  example = f'{name}:2x4'
  if ':' in text and not re.fullmatch(r'[1-9]\d{0,3}(x[1-9]\d{0,3})*', shape):
    raise ArgumentError('compile_for', text, f'write {name} or {example}')
  if card.platform == 'cuda':
    if len(sizes) > 2:
      remedy = f'write hosts x cards of each, for example {example}'
      raise ArgumentError('compile_for', text, remedy)
    hosts, cards = ([1, 1] + [int(size) for size in sizes])[-2:]
    return Target(text, card, (hosts, cards))
  return Target(text, card, tuple(int(size) for size in sizes) or (1, 1))


# As their drivers call them.
_KINDS = {
  'h100 80gb hbm3': 'h100',  # not the PCIe and NVL cards, which are slower
  'h200': 'h200',
  'a100': 'a100',
  'nvidia l4': 'l4',
  'tpu v5 lite': 'v5e',
  'tpu v5e': 'v5e',
  'tpu v5p': 'v5p',
  'tpu v5': 'v5p',
  'tpu v6 lite': 'v6e',
  'tpu v6e': 'v6e',
}


def card_of(device_kind: str) -> Card | None:
  """The card that a device is, by JAX's name of it; None: another.

  >>> card_of('NVIDIA H100 80GB HBM3').name, card_of('TPU v5 lite').name
  ('h100', 'v5e')
  >>> card_of('NVIDIA L40S') is None
  True
  """
  for kind, name in _KINDS.items():
    if re.search(rf'\b{kind}\b', device_kind.lower()):
      return CARDS[name]
  return None


__all__ = ['CARDS', 'Card', 'Target', 'card_of', 'parse_target']
