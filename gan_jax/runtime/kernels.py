"""Kernels of a compiled program: their kinds, their bytes, their operations.

Each instruction of the loop of steps that computes or moves something is one; a
fusion is one. Bytes are those that it reads and writes; of what it slices,
gathers or updates in place, only that part. Operations are multiplications and
additions of its products, and one for each element of its other arithmetic. An
inner loop counts as often as it turns, of a branch the arm with more work.
Conditions of loops are not counted, nor what a TPU does with single numbers on
its scalar unit.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Sequence

from gan_jax.runtime import hlo
from gan_jax.runtime.cards import Card
from gan_jax.runtime.hlo import Computation, Instruction, Module

KINDS = (
  'convolution',
  'matrix product',
  'reduction',
  'element-wise',
  'copy and transpose',
  'collective',
  'other',
)
PRODUCTS = KINDS[:2]
_LABELS = re.compile(r'dim_labels=(\w+)_(\w+)->(\w+)')
_DILATION = re.compile(r'lhs_dilate=([0-9x]+)')
_CONTRACTED = re.compile(r'lhs_contracting_dims=\{([0-9,]*)\}')
_PRECISION = re.compile(r'operand_precision"?[=:][\[{]"?(\w+)')
_CUBLAS_CONTRACTED = re.compile(r'"lhs_contracting_dimensions":\[([^\]]*)\]')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_HOST_SPACE = re.compile(r'S\(5\)')
_HOST_CALL = re.compile(r'callback|MoveToHost|MoveToDevice|Host(?:Send|Recv)')
_MATRIX_CALL = re.compile(r'cublas|gemm|matmul|\bdot', re.IGNORECASE)

# What runs nothing on the device, or has begun elsewhere.
_NOTHING = frozenset(
  'parameter constant get-tuple-element tuple bitcast after-all partition-id'
  ' replica-id opt-barrier add-dependency domain'.split()
)
_MOVES = frozenset(
  'copy copy-start transpose reshape slice slice-start dynamic-slice'
  ' dynamic-update-slice concatenate pad reverse gather broadcast convert'
  ' iota'.split()
)
# Without one of these, what is only moved is filled or converted.
_MOVERS = _MOVES - {'reshape', 'broadcast', 'convert', 'iota', 'gather'}
_SLICES = ('slice', 'dynamic-slice', 'gather')
_SCATTERS = ('scatter', 'select-and-scatter')
_TO_HOST = frozenset('infeed outfeed send recv'.split())
# What is run by no kernel of its own: a promise to the compiler.
_NO_CALLS = frozenset({'AssumeGatherIndicesInBound', 'Sharding'})


@dataclasses.dataclass(frozen=True)
class Kernel:
  """What the device launches at one instruction.

  Attributes:
    name: of the instruction.
    kind: one of `KINDS`.
    what: its sort, such as `__cudnn$convForward` or `all-reduce`.
    count: launches in one step.
    bytes: read and written by one launch.
    flops: of one launch.
    dtype: of what it reads first: `f32`, `bf16`.
    exact: whether its products are asked for at the highest precision.
    cycles: that the compiler estimates; 0 where it does not.
  """

  name: str
  kind: str
  what: str
  count: int
  bytes: int
  flops: int
  dtype: str = 'f32'
  exact: bool = False
  cycles: int = 0


def count(module: Module) -> list[Kernel]:
  """The kernels of one step."""
  body, times = module.find_step()
  return _count(module, body, times)


def _count(module: Module, name: str, times: int) -> list[Kernel]:
  computation = module.computations[name]
  kernels: list[Kernel] = []
  for one in computation.values():
    if _is_no_kernel(one):
      continue
    if one.opcode in ('while', 'call', 'async-start', 'conditional'):
      turns = times * (one.trips or 1)
      arms = [_count(module, called, turns) for called in one.called]
      if one.opcode == 'conditional':
        arms = [max(arms, key=_work)]
      kernels += [kernel for arm in arms for kernel in arm]
    else:
      kernels.append(_kernel(module, computation, one, times))
  return kernels


def _work(kernels: Sequence[Kernel]) -> tuple[int, int]:
  return total(kernels, 'flops'), sum(kernel.count for kernel in kernels)


def _is_no_kernel(one: Instruction) -> bool:
  if one.opcode in _NOTHING or one.opcode.endswith(('-done', '-update')):
    return True
  if one.opcode == 'custom-call':
    return one.target in _NO_CALLS
  if one.called or one.collective or one.opcode.startswith('copy'):
    return False
  return len(hlo.arrays(one.shape)) == hlo.count_elements(one.shape) == 1


def _kernel(
  module: Module, computation: Computation, one: Instruction, times: int
) -> Kernel:
  parts = [*_parts(module, computation, one)]
  kind, what = _classify(one, [part for _, part in parts])
  shapes = [_shape(computation, name) for name in one.operands]
  cycles = _CYCLES.search(one.rest)
  return Kernel(
    name=one.name,
    kind=kind,
    what=what,
    count=times,
    bytes=_count_bytes(module, computation, one),
    flops=0
    if kind in ('copy and transpose', 'collective')
    else sum(_count_flops(around, part) for around, part in parts),
    dtype=hlo.dtype_of(shapes[0] if shapes else one.shape),
    exact=any(_is_exact(part) for _, part in parts),
    cycles=int(cycles[1]) if cycles else 0,
  )


def _shape(computation: Computation, name: str) -> str:
  return computation[name].shape if name in computation else ''


def _is_exact(one: Instruction) -> bool:
  match = _PRECISION.search(one.rest)
  return match is not None and match[1].lower() == 'highest'


def _parts(
  module: Module, computation: Computation, one: Instruction
) -> Iterator[tuple[Computation, Instruction]]:
  """What a kernel is made of: instructions, each in its computation."""
  if one.opcode != 'fusion':
    yield computation, one
    return
  for name in one.called:
    inner = module.computations[name]
    for part in inner.values():
      if part.opcode not in _NOTHING:
        yield from _parts(module, inner, part)


# Kinds.


def _classify(
  one: Instruction, parts: Sequence[Instruction]
) -> tuple[str, str]:
  """Kind and sort of a kernel."""
  opcodes = {part.opcode for part in parts}
  for part in parts:
    if part.collective:
      return 'collective', part.collective
    if part.opcode == 'custom-call':
      return _classify_call(part), part.target
    if part.opcode == 'convolution':
      # On TPU a matrix product is a convolution without spatial axes.
      labels = _LABELS.search(part.rest)
      spatial = labels is None or re.search(r'[0-9]', labels[1])
      return PRODUCTS[0 if spatial else 1], part.opcode
    if part.opcode == 'dot':
      return 'matrix product', part.opcode
    if part.opcode in (*_SCATTERS, 'sort', *_TO_HOST):
      return 'other', part.opcode
  if opcodes & {'reduce', 'reduce-window'}:
    return 'reduction', one.opcode
  if opcodes <= _MOVES and opcodes & _MOVERS:
    return 'copy and transpose', one.opcode
  return 'element-wise', one.opcode


def _classify_call(one: Instruction) -> str:
  if 'conv' in one.target:
    return 'convolution'
  return 'matrix product' if _MATRIX_CALL.search(one.target) else 'other'


# Bytes.


def _count_bytes(
  module: Module, computation: Computation, one: Instruction
) -> int:
  """Bytes that a kernel reads and writes."""
  shapes = [_shape(computation, name) for name in one.operands]
  if one.opcode == 'fusion':
    inner = module.computations[one.called[0]]
    read = sum(_count_read(inner, i, x) for i, x in enumerate(shapes))
    return read + _count_written(inner, one.shape)
  if one.opcode in _SLICES:
    return 2 * hlo.count_bytes(one.shape)
  if one.opcode == 'dynamic-update-slice':
    return 2 * hlo.count_bytes(shapes[1])
  operands = sum(map(hlo.count_bytes, shapes))
  if one.opcode in ('all-gather-start', 'collective-permute-start'):
    return hlo.count_bytes(one.shape)  # tells of operands and results
  if one.opcode.endswith('-start'):
    return 2 * operands
  return operands + hlo.count_bytes(one.shape)


def _count_read(inner: Computation, number: int, shape: str) -> int:
  """Bytes that a fusion reads of an operand: what it slices, or all of it."""
  whole = hlo.count_bytes(shape)
  for one in inner.values():
    if one.opcode == 'parameter' and one.arguments == f'({number})':
      return min(whole, _count_used(inner, one.name, whole))
  return whole


def _count_used(inner: Computation, name: str, whole: int) -> int:
  total = 0
  for use in inner.values():
    if name not in use.operands:
      continue
    first = use.operands[0] == name
    if use.opcode == 'bitcast':
      total += _count_used(inner, use.name, whole)
    elif use.opcode in _SLICES and first:
      total += hlo.count_bytes(use.shape)
    elif use.opcode != 'dynamic-update-slice' or not first:  # not in place
      return whole
  return total


def _count_written(inner: Computation, shape: str) -> int:
  """Bytes that a fusion writes: of an update in place, those of the update."""
  (root,) = (one for one in inner.values() if one.root)
  while root.opcode == 'bitcast':
    root = inner[root.operands[0]]
  if root.opcode == 'dynamic-update-slice':
    return hlo.count_bytes(_shape(inner, root.operands[1]))
  return hlo.count_bytes(shape)


# Operations.


def _count_flops(around: Computation, one: Instruction) -> int:
  """Operations of an instruction."""
  shapes = [_shape(around, name) for name in one.operands]
  if one.opcode == 'convolution' or 'conv' in one.target:
    return _count_convolution(one, shapes)
  if one.opcode == 'dot' or _MATRIX_CALL.search(one.target):
    return _count_product(one, shapes)
  if one.opcode in ('reduce', 'reduce-window'):
    return max([0, *map(hlo.count_elements, shapes)])
  if one.opcode in _NOTHING | _MOVES or one.opcode == 'custom-call':
    return 0
  return hlo.count_elements(one.shape)


def _count_convolution(one: Instruction, shapes: Sequence[str]) -> int:
  """Twice the products: each output, times the kernel, over its outputs.

  cuDNN's calls for gradients name their operands by the part that they have in
  the forward convolution: the images, the kernel, or the output.
  """
  labels, result = _LABELS.search(one.rest), hlo.arrays(one.shape)
  if labels is None or len(shapes) < 2 or not result:
    return 0
  outputs, kernel, first = result[0][1], hlo.dims_of(shapes[1]), labels[2]
  if one.target.endswith('convBackwardInput'):
    outputs = hlo.dims_of(shapes[0])
  elif one.target.endswith('convBackwardFilter'):
    outputs, kernel = kernel, result[0][1]
  dilated = _DILATION.search(one.rest)
  apart = math.prod(map(int, dilated[1].split('x'))) if dilated else 1
  total = 2 * math.prod(outputs) * math.prod(kernel)
  return total // kernel[first.index('o')] // apart


def _count_product(one: Instruction, shapes: Sequence[str]) -> int:
  """Twice each output times the length of what is summed over."""
  found = _CONTRACTED.search(one.rest) or _CUBLAS_CONTRACTED.search(one.rest)
  result = hlo.arrays(one.shape)
  if found is None or not shapes or not result:
    return 0
  dims = hlo.dims_of(shapes[0])
  axes = [int(axis.strip('" ')) for axis in found[1].split(',') if axis]
  summed = math.prod(dims[axis] for axis in axes)
  return 2 * math.prod(result[0][1]) * summed


# What should not be there.


def find_host_transfers(module: Module) -> list[str]:
  """Names of instructions that move data to or from the host, or call it."""
  return [
    one.name
    for one in module.instructions()
    if one.opcode in _TO_HOST
    or _HOST_CALL.search(one.target)
    or _HOST_SPACE.search(one.shape)
  ]


def find_scatters(module: Module) -> list[str]:
  """Names of instructions that may add in any order, or select and scatter.

  A scatter whose places are told to be unique writes each once.
  """
  return [
    one.name
    for one in module.instructions()
    if one.opcode == 'select-and-scatter'
    or (one.opcode == 'scatter' and 'unique_indices=true' not in one.rest)
  ]


def total(kernels: Iterable[Kernel], field: str) -> int:
  """Sum of `bytes`, `flops` or `cycles` over all launches of a step."""
  return sum(k.count * int(getattr(k, field)) for k in kernels)


def seconds(kernel: Kernel, card: Card, hosts: int = 1) -> float:
  """One launch by a roofline: what it waits for longest, and the launch.

  Args:
    kernel: of a program.
    card: that runs it.
    hosts: over which a collective goes.
  """
  if kernel.kind == 'collective':
    speed = card.link if hosts == 1 else card.network
    return kernel.bytes / speed + card.launch
  product = kernel.kind in PRODUCTS
  peak = card.peak(kernel.dtype, product=product, exact=kernel.exact)
  return max(kernel.bytes / card.bandwidth, kernel.flops / peak) + card.launch


__all__ = [
  'KINDS',
  'PRODUCTS',
  'Kernel',
  'count',
  'find_host_transfers',
  'find_scatters',
  'seconds',
  'total',
]
