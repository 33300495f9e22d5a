"""gan_jax: generative adversarial networks as a two-player game, in JAX.

A generator and a discriminator trained alternately, as Goodfellow et al.
(2014, arXiv:1406.2661) posed them. Importing the package imports nothing
heavy: the commands answer `--help` without loading JAX.
"""

__version__ = '0.1.0'
