"""A command that pauses, for tests that end it at a moment of their choice.

`python -m helpers.paused FLAGS` is `gan_jax.train`, or `gan_jax.ablate` where
something varies. In training it pauses from step 20 on until the file exists
that PAUSED_GO names or a signal comes; in compilation, if PAUSED_COMPILE is
set, for long, and hears no signal, as native code does.
"""

import os
import runpy
import signal
import sys
import time

from gan_jax.runtime import preemption
from gan_jax.training import loop


def _dispatch(original):
  def dispatch(self, count):
    done = original(self, min(count, 5))
    go = os.environ['PAUSED_GO']
    while self.step >= 25 and not os.path.exists(go):
      if self.listener.received:
        break
      time.sleep(0.02)
    return done

  return dispatch


def _deaf(self):
  print('compiling', flush=True)
  signal.pthread_sigmask(signal.SIG_BLOCK, preemption.signals())
  time.sleep(600)


if __name__ == '__main__':
  loop.HostLoop.dispatch = _dispatch(loop.HostLoop.dispatch)
  if 'PAUSED_COMPILE' in os.environ:
    from gan_jax.training import run_loop

    run_loop.RunLoop.compile = _deaf
  varies = any(word.startswith('--vary') for word in sys.argv)
  module = 'gan_jax.ablate' if varies else 'gan_jax.train'
  runpy.run_module(module, run_name='__main__', alter_sys=True)
