"""NumPy images: interrupted, continued, and the same bits in the end."""

import os
import pathlib
import signal
import threading

import numpy as np
from sklearn.datasets import load_digits

import gan_jax as gj


def interrupt(log=pathlib.Path('runs/parts/stats.jsonl')):
  while not (log.exists() and log.stat().st_size):
    threading.Event().wait(0.01)
  os.kill(os.getpid(), signal.SIGINT)  # Ctrl-C, once it trains


images = np.uint8(load_digits().images * 255 / 16)[..., None]
options = dict(data=images, network='mlp', objective='hinge', steps=2000)
threading.Thread(target=interrupt, daemon=True).start()
print(gj.train('runs/parts', **options).outcome)
parts, whole = (gj.train(f'runs/{x}', **options) for x in ('parts', 'whole'))
np.testing.assert_array_equal(whole.sample(64), parts.sample(64))
