"""What an ablation varies: from words to cells, members and programs.

`--vary=objective=minimax,hinge` is an axis; the cross product of the axes are
the cells, each a configuration; a cell and a seed are a member; members that
differ in traced numbers only are one compiled program. Nothing here needs JAX.
"""

import dataclasses
from typing import Any

from gan_jax import rules
from gan_jax.config import FIELDS, Config

# Flags whose value the compiled step takes as an argument (`state.Hyper`).
TRACED = (
  'lr_g',
  'lr_d',
  'beta1_g',
  'beta1_d',
  'beta2_g',
  'beta2_d',
  'clip_g',
  'clip_d',
  'label_smoothing',
  'label_real',
  'label_fake',
  'label_target',
  'instance_noise',
  'instance_noise_kimg',
  'ema_halflife_kimg',
  'consensus',
)
# Of these, those of which 0 means that a part of the step is not there.
_SWITCHES = ('clip_g', 'clip_d', 'instance_noise', 'ema_halflife_kimg')


def static(config: Config) -> Config:
  """What of a configuration is compiled: the same for one program's members.

  Traced numbers are at their defaults, or 1 where they switch something on;
  the weights of regularizers, the seed and the folder are left out.
  """
  changes: dict[str, Any] = {name: FIELDS[name].default for name in TRACED}
  changes |= {name: float(getattr(config, name) > 0) for name in _SWITCHES}
  terms = [f'{p.name}@{p.place}' for p in rules.penalties(config.regularizer)]
  return dataclasses.replace(
    config, **changes, regularizer=','.join(terms), seed=0, workdir=''
  )
