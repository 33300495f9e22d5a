"""NumPy images: interrupted, continued, and the same bits in the end."""

import os
import signal
import threading

import numpy as np
from sklearn.datasets import load_digits

import gan_jax as gj

images = np.uint8(load_digits().images * 255 / 16)[..., None]
options = dict(data=images, network='mlp', objective='hinge', steps=2000)
whole = gj.train('runs/whole', **options)

stop = threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT))  # Ctrl-C
stop.start()
parts = gj.train('runs/parts', **options)
print(parts.outcome, 'at step', parts.step)
stop.join()
parts = gj.train('runs/parts', **options)
np.testing.assert_array_equal(whole.sample(64), parts.sample(64))
