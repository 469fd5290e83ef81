"""Packaging of ctxjax: `pip install -e .[dev]` for development, plain `pip install .` for use."""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "ctxjax" / "__init__.py").read_text()).group(1)

EXTRAS = {
    "beam": ["apache-beam>=2.70,<3"],
    "bench": ["gensim>=4.4", "torch>=2.4", "transformers>=5,<6"],  # what experiments/bench compares with
    "bleu": ["sacrebleu>=2.4"],
    "dedup": ["datasketch>=2.0,<3"],  # other major versions sign otherwise
    "demo": ["gensim>=4.4", "matplotlib>=3.9"],
    "tensorboard": ["tensorboardX>=2.6.4"],
    "wandb": ["wandb>=0.20"],
    "hf": ["torch>=2.4", "transformers>=5,<6"],
    "tf": ["tensorflow-cpu>=2.18"],
    "tpu": ["jax[tpu]>=0.10,<0.13"],
    "cuda": ["jax[cuda13]>=0.10,<0.13"],
    "gcs": ["etils[epath-gcs]>=1.12"],
    "language": ["py3langid>=0.4,<0.5"],  # another model tells otherwise
    "notebook": ["nbclient>=0.10", "nbformat>=5.10", "ipykernel>=6.29"],
    "dev": [
        "beartype>=0.20",
        "hypothesis>=6.100",
        "basedpyright>=1.29",
        "pytest>=8.3",
        "pytest-xdist>=3.6",
        "ruff>=0.9",
        "scikit-learn>=1.5",
        "seqeval>=1.2.2",
        "tensorboardX>=2.6.4",
    ],
}

setup(
    name="ctxjax",
    version=VERSION,
    description="Pretrain the models that made word representations contextual, in JAX and Flax",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["ctxjax", "ctxjax.*"]),
    python_requires=">=3.11",
    install_requires=[
        "jax>=0.10,<0.13",
        "flax>=0.12.8,<0.13",
        "optax>=0.2.8,<0.3",
        "orbax-checkpoint>=0.12.4,<0.13",
        "grain>=0.2.18,<0.3",
        "array-record>=0.8.3",
        "tensorflow-datasets>=4.9.10,<5",
        "importlib_resources>=6.0",  # tensorflow-datasets imports it to prepare a dataset and does not ask for it
        "ml-collections>=1.1,<2",
        "numpy>=2.0",
        "tokenizers>=0.22,<0.24",
        "safetensors>=0.6",
        "absl-py>=2.2",
        "etils[epath]>=1.12",
        "h5py>=3.12",
        "jaxtyping>=0.3",
        "tqdm>=4.67",
        "xxhash>=3.5",
        "zstandard>=0.23",
    ],
    extras_require=EXTRAS,
)
