"""The architectures by name, one file each."""

from gan_jax.networks import (
  dcgan,
  dirac,
  goodfellow2014,
  infogan,
  mlp,
  pacgan,
  r3gan,
  resnet,
  sndcgan,
  unrolled,
)
from gan_jax.networks.architecture import Architecture

ARCHITECTURES: dict[str, Architecture] = {
  'mlp': mlp.ARCHITECTURE,
  'goodfellow2014': goodfellow2014.ARCHITECTURE,
  'dcgan': dcgan.ARCHITECTURE,
  'infogan': infogan.ARCHITECTURE,
  'sndcgan': sndcgan.ARCHITECTURE,
  'resnet': resnet.ARCHITECTURE,
  'r3gan': r3gan.ARCHITECTURE,
  'pacgan': pacgan.ARCHITECTURE,
  'unrolled': unrolled.ARCHITECTURE,
  'dirac': dirac.ARCHITECTURE,
}
