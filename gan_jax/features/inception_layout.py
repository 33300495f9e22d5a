"""What the convolutions of the FID Inception are called, and their shapes.

The graph of 2015-12-05 calls them by scopes (`mixed_4/tower/conv_1`), its
PyTorch port by torchvision's modules (`Mixed_6b.branch7x7_2`). This module is
the dictionary between the two; `inception.py` has the wiring.

Reference: Szegedy et al. 2016, arXiv:1512.00567, section 6.
"""

from typing import NamedTuple


class Layer(NamedTuple):
  """One layer with weights.

  Attributes:
    torch: its module in the PyTorch port.
    shape: of its kernel (height, width, in, out), or (in, out) of `softmax`.
  """

  torch: str
  shape: tuple[int, ...]


# Of a block: scope below it, module below it, kernel, inputs (0: those of the
# block, -1: the width given with it), outputs (likewise).
_Row = tuple[str, str, tuple[int, int], int, int]

_A: tuple[_Row, ...] = (
  ('conv', 'branch1x1', (1, 1), 0, 64),
  ('tower/conv', 'branch5x5_1', (1, 1), 0, 48),
  ('tower/conv_1', 'branch5x5_2', (5, 5), 48, 64),
  ('tower_1/conv', 'branch3x3dbl_1', (1, 1), 0, 64),
  ('tower_1/conv_1', 'branch3x3dbl_2', (3, 3), 64, 96),
  ('tower_1/conv_2', 'branch3x3dbl_3', (3, 3), 96, 96),
  ('tower_2/conv', 'branch_pool', (1, 1), 0, -1),
)
_B: tuple[_Row, ...] = (
  ('conv', 'branch3x3', (3, 3), 0, 384),
  ('tower/conv', 'branch3x3dbl_1', (1, 1), 0, 64),
  ('tower/conv_1', 'branch3x3dbl_2', (3, 3), 64, 96),
  ('tower/conv_2', 'branch3x3dbl_3', (3, 3), 96, 96),
)
_C: tuple[_Row, ...] = (
  ('conv', 'branch1x1', (1, 1), 0, 192),
  ('tower/conv', 'branch7x7_1', (1, 1), 0, -1),
  ('tower/conv_1', 'branch7x7_2', (1, 7), -1, -1),
  ('tower/conv_2', 'branch7x7_3', (7, 1), -1, 192),
  ('tower_1/conv', 'branch7x7dbl_1', (1, 1), 0, -1),
  ('tower_1/conv_1', 'branch7x7dbl_2', (7, 1), -1, -1),
  ('tower_1/conv_2', 'branch7x7dbl_3', (1, 7), -1, -1),
  ('tower_1/conv_3', 'branch7x7dbl_4', (7, 1), -1, -1),
  ('tower_1/conv_4', 'branch7x7dbl_5', (1, 7), -1, 192),
  ('tower_2/conv', 'branch_pool', (1, 1), 0, 192),
)
_D: tuple[_Row, ...] = (
  ('tower/conv', 'branch3x3_1', (1, 1), 0, 192),
  ('tower/conv_1', 'branch3x3_2', (3, 3), 192, 320),
  ('tower_1/conv', 'branch7x7x3_1', (1, 1), 0, 192),
  ('tower_1/conv_1', 'branch7x7x3_2', (1, 7), 192, 192),
  ('tower_1/conv_2', 'branch7x7x3_3', (7, 1), 192, 192),
  ('tower_1/conv_3', 'branch7x7x3_4', (3, 3), 192, 192),
)
_E: tuple[_Row, ...] = (
  ('conv', 'branch1x1', (1, 1), 0, 320),
  ('tower/conv', 'branch3x3_1', (1, 1), 0, 384),
  ('tower/mixed/conv', 'branch3x3_2a', (1, 3), 384, 384),
  ('tower/mixed/conv_1', 'branch3x3_2b', (3, 1), 384, 384),
  ('tower_1/conv', 'branch3x3dbl_1', (1, 1), 0, 448),
  ('tower_1/conv_1', 'branch3x3dbl_2', (3, 3), 448, 384),
  ('tower_1/mixed/conv', 'branch3x3dbl_3a', (1, 3), 384, 384),
  ('tower_1/mixed/conv_1', 'branch3x3dbl_3b', (3, 1), 384, 384),
  ('tower_2/conv', 'branch_pool', (1, 1), 0, 192),
)
# Block, module, rows, its inputs, and the channels that its rows leave open.
_BLOCKS = (
  ('mixed', 'Mixed_5b', _A, 192, 32),
  ('mixed_1', 'Mixed_5c', _A, 256, 64),
  ('mixed_2', 'Mixed_5d', _A, 288, 64),
  ('mixed_3', 'Mixed_6a', _B, 288, 0),
  ('mixed_4', 'Mixed_6b', _C, 768, 128),
  ('mixed_5', 'Mixed_6c', _C, 768, 160),
  ('mixed_6', 'Mixed_6d', _C, 768, 160),
  ('mixed_7', 'Mixed_6e', _C, 768, 192),
  ('mixed_8', 'Mixed_7a', _D, 768, 0),
  ('mixed_9', 'Mixed_7b', _E, 1280, 0),
  ('mixed_10', 'Mixed_7c', _E, 2048, 0),
)
CLASSES = 1008


def _layers() -> dict[str, Layer]:
  table = {
    'conv': Layer('Conv2d_1a_3x3', (3, 3, 3, 32)),
    'conv_1': Layer('Conv2d_2a_3x3', (3, 3, 32, 32)),
    'conv_2': Layer('Conv2d_2b_3x3', (3, 3, 32, 64)),
    'conv_3': Layer('Conv2d_3b_1x1', (1, 1, 64, 80)),
    'conv_4': Layer('Conv2d_4a_3x3', (3, 3, 80, 192)),
  }
  for block, module, rows, inputs, width in _BLOCKS:
    for scope, branch, kernel, ins, outs in rows:
      channels = [
        {0: inputs, -1: width}.get(ins, ins),
        width if outs < 0 else outs,
      ]
      table[f'{block}/{scope}'] = Layer(
        f'{module}.{branch}', (*kernel, *channels)
      )
  table['softmax'] = Layer('fc', (2048, CLASSES))
  return table


# By the scope in the graph, in the order of evaluation.
LAYERS: dict[str, Layer] = _layers()
