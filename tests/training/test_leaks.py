"""Nothing is kept of a step: what lives after many is what lived after few.

Of a checkpoint a little is, by tensorstore: experiments/speed/memory says how
much, of whole processes.
"""

import dataclasses
import gc
import itertools
import tracemalloc

import jax
import pytest
from helpers import small

from gan_jax.config import app
from gan_jax.training.run_loop import RunLoop
from gan_jax.training.train import train_config

STARTED, EVERY = 80, 80
KINDS = {
  'density': small.ring(),
  'streamed': small.digits(residence='stream', network='mlp', depth=1),
  'scored': small.ring(metrics='modes', eval_every=10, eval_samples=64),
}
# Each step is a dispatch and a row of the log, each twentieth draws samples.
OFTEN = dict(steps=401, log_every=1, sample_every=20, checkpoint_every=10**6)


@pytest.fixture
def living(monkeypatch, digits_root):
  """What lives every 80 steps: device arrays, objects, bytes made meanwhile."""
  found = []
  own = RunLoop.at_boundary

  def at_boundary(loop):
    own(loop)
    if loop.step == STARTED:
      tracemalloc.start()
    elif loop.step > STARTED and loop.step % EVERY == 0:
      gc.collect()
      traced, _ = tracemalloc.get_traced_memory()
      found.append((len(jax.live_arrays()), len(gc.get_objects()), traced))

  monkeypatch.setattr(RunLoop, 'at_boundary', at_boundary)
  monkeypatch.setenv('TFDS_DATA_DIR', str(digits_root))
  gc.collect()
  gc.freeze()  # what lives already is not looked at
  yield found
  tracemalloc.stop()
  gc.unfreeze()


@pytest.mark.slow
@pytest.mark.parametrize(
  'kind',
  [
    'density',
    pytest.param('streamed', marks=pytest.mark.soak),
    pytest.param('scored', marks=pytest.mark.soak),
  ],
)
def test_a_step_leaves_nothing_behind(kind, living, programs, tmp_path):
  """Nor does a row of the log, a grid of samples, a score."""
  places = dict(workdir=str(tmp_path), compilation_cache=programs)
  config = dataclasses.replace(KINDS[kind], **OFTEN, **places)
  assert train_config(config) == app.DONE
  # The smallest growth of three: what is made once (a cache, a late import)
  # shows in one of them, what each step leaves behind in all.
  arrays, objects, traced = (
    min(later - sooner for sooner, later in itertools.pairwise(counts))
    for counts in zip(*living, strict=True)
  )
  assert len(living) == 4
  assert arrays == 0, 'arrays on the device'
  assert objects < EVERY / 10, 'objects'
  # 160 to 220 a step are found. A row kept as text has 700 more.
  assert traced < 450 * EVERY, 'bytes'
