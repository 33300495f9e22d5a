"""In the place of worker processes: calls in this one, which are counted."""

from gan_jax.runtime import workers


class Here:
  """As `workers.Workers`."""

  calls: list = []
  count = 1

  def __init__(self, function, count=0):
    self._function = workers._find(function)

  def __enter__(self):
    return self

  def __exit__(self, *error):
    pass

  def map(self, calls, ahead=4):
    for args in calls:
      Here.calls.append(args)
      yield self._function(*args)
