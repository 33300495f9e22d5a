"""64 seeds of linen_pair.py as one compiled program, and their scores."""

from linen_pair import trainer

import gan_jax as gj

table = gj.ablate(
  'runs/seeds',
  data='digits',
  trainer=trainer,
  vary={},
  seeds=64,
  steps=500,
  metrics=['fid'],
  features='pixels',
)
print(table)  # of 64 scores: mean, interval, spread
for row in sorted(table.rows, key=lambda row: row['fid@pixels']):
  print(row['seed'], row['fid@pixels'])
