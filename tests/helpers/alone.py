"""In the place of worker processes: calls in this one, which are counted."""

from gan_jax.runtime import workers
from gan_jax.runtime.errors import Error


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
      try:
        answer = self._function(*args)
      except Exception as error:  # as it comes back from a process
        raise Error(f'{type(error).__name__}: {error}') from error
      yield answer
