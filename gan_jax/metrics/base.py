"""A metric as an object: its function, what it sees and what it returns."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from numpy.typing import ArrayLike

Direction = Literal['lower', 'higher', '']
Kind = Literal['images', 'features', 'probabilities', 'points']
Need = Literal['truth', 'validation', 'labels', 'protocol']


@runtime_checkable
class Truth(Protocol):
  """A known density over 1 or 2 dimensions, such as `gan_jax.data.Density`."""

  @property
  def name(self) -> str:
    """Of the density, for messages."""

  @property
  def dim(self) -> int:
    """Dimensions of a point."""

  @property
  def extent(self) -> tuple[float, float]:
    """(low, high) of both axes of the region that has nearly all mass."""

  @property
  def modes(self) -> Any:
    """(k, dim) centres of its modes, or None without separate ones."""

  @property
  def mode_std(self) -> float | None:
    """Standard deviation of each mode along each axis, or None.

    0 where all samples of a mode are the same.
    """

  @property
  def fingerprint(self) -> str:
    """Hash of its parameters; empty if there is none."""

  @property
  def sample(self) -> Callable[..., Any]:
    """`(key, n) -> (n, dim)`."""

  @property
  def log_prob(self) -> Callable[..., Any]:
    """`(n, dim) -> (n,)`, in nats."""


class Example(NamedTuple):
  """Samples whose scores are known from a formula.

  Attributes:
    fake: generated samples.
    scores: what the metric must return of them; names may be left out.
    real: real samples, where the metric reads them.
    needs: what the metric needs besides, by name.
    options: further keywords of the metric.
  """

  fake: ArrayLike
  scores: Mapping[str, float]
  real: ArrayLike | None = None
  needs: Mapping[str, Any] = {}
  options: Mapping[str, Any] = {}


class Checks(NamedTuple):
  """What `gan_jax.testing.check_metric` holds a metric to.

  Attributes:
    examples: makes samples whose scores are known.
    best: first score of a set against itself; None where chance has a say, or
      the metric does not read real samples.
    by_place: whether the order of samples has a say, since subsets or pairs
      are drawn by their places.
    options: keywords under which the metric is cheap.
  """

  examples: Callable[[], tuple[Example, ...]]
  best: float | None = None
  by_place: bool = False
  options: Mapping[str, Any] = {}


class Metric(NamedTuple):
  """A metric: how far generated samples are from the data.

  Attributes:
    name: what flags, messages and records call it.
    compute: `(real, fake, *, seed, **needs) -> {score: value}`, on NumPy
      arrays; plain floats, and the same ones for the same arguments. It raises
      `ArgumentError('fake', ...)`, or any other ValueError, for samples that
      have no score, and `ArgumentError` of another argument for what no
      generator could be scored with.
    scores: every name that it returns, in order, and which values of it are
      better: 'lower', 'higher', or '' where neither end is. The first ranks. A
      name that ends in `*` stands for any number of names.
    sees: 'images', uint8 (n, height, width, channels); 'features', float32
      (n, dim); 'probabilities', float32 (n, classes); or 'points', float32
      (n, dim).
    needs: what `compute` takes by keyword: 'truth', the density (`Truth`);
      'validation', further real samples; 'labels', the class of every real
      image, int32; 'protocol', all that the scores depend on, a dict.
    minimum: the fewest samples of a side.
    version: goes into the protocol beside every score; change it when
      `compute` changes.
    reads_real: whether it reads `real`, which may be None otherwise.
    checks: what the conformance tests hold it to.
    remark: what a reader of such scores should know before believing them, by
      their names here; '' of most.

  >>> def shift(real, fake, *, seed):
  ...   return {'shift': float(abs(fake.mean() - real.mean()))}
  >>> metric = Metric('shift', shift, {'shift': 'lower'}, sees='features')
  >>> metric.primary, metric.direction('shift@pixels')
  ('shift', 'lower')
  """

  name: str
  compute: Callable[..., Mapping[str, float]]
  scores: Mapping[str, Direction]
  sees: Kind = 'images'
  needs: tuple[Need, ...] = ()
  minimum: int = 2
  version: str = '1'
  reads_real: bool = True
  checks: Checks | None = None
  remark: Callable[[Mapping[str, float]], str] | None = None

  @property
  def primary(self) -> str:
    """The score that ranks generators."""
    return next(iter(self.scores))

  @property
  def better(self) -> Direction:
    """Which values of the primary score are better."""
    return self.scores[self.primary]

  def direction(self, score: str) -> Direction | None:
    """'lower', 'higher' or '' of one of its scores; None if it is none.

    What follows an `@` (the features) is ignored.
    """
    stem = score.partition('@')[0]
    for name, better in self.scores.items():
      if stem == name or name.endswith('*') and stem.startswith(name[:-1]):
        return better
    return None


def of_fake(function: Callable[..., Mapping[str, float]]) -> Any:
  """A function of generated samples alone, as `Metric.compute` is called."""

  def compute(real: Any, fake: Any, **keywords: Any) -> Mapping[str, float]:
    del real
    return function(fake, **keywords)

  return compute
