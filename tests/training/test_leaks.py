"""Nothing is kept of a step: what lives after many is what lived after few.

Of a checkpoint a little is, by tensorstore: experiments/speed/memory says how
much, of whole processes.
"""

import dataclasses
import gc
import tracemalloc

import jax
import pytest
from helpers import small

from gan_jax.config import app
from gan_jax.training.run_loop import RunLoop
from gan_jax.training.train import train_config

STARTED, EARLY, LATE = 80, 160, 320
KINDS = {
  'density': small.ring(),
  'streamed': small.digits(residence='stream', network='mlp', depth=1),
  'scored': small.ring(metrics='modes', eval_every=10, eval_samples=64),
}
# Each step is a dispatch and a row of the log, each twentieth draws samples.
OFTEN = dict(steps=330, log_every=1, sample_every=20, checkpoint_every=10**6)


@pytest.fixture
def living(monkeypatch, digits_root):
  """What lives early and late: device arrays, objects, bytes made meanwhile."""
  found = []
  own = RunLoop.at_boundary

  def at_boundary(loop):
    own(loop)
    if loop.step == STARTED:
      tracemalloc.start()
    if loop.step in (EARLY, LATE):
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
  (arrays, objects, traced), late = living
  assert late[0] == arrays, 'arrays on the device'
  assert late[1] - objects < (LATE - EARLY) / 10, 'objects'
  # 160 to 220 are found, and fewer later: caches. A row as text has 700 more.
  assert late[2] - traced < 450 * (LATE - EARLY), 'bytes'
