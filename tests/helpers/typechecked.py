"""The type checker that pytest runs gan_jax under: `typechecked.check`.

Beartype, reading annotations as mypy does: an int where a float is asked for is
right (PEP 484), which beartype alone refuses.
"""

import beartype

check = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
