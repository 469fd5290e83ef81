"""ctxjax: pretrain the models that made word representations contextual, and put them to use, in JAX.

`ctxjax.load(path)` opens a checkpoint or a published model; the programs are `python -m ctxjax.train` and its siblings
(`python -m ctxjax` lists them). Importing this package imports nothing heavy: names are resolved on first use.
"""

__version__ = "0.1.0"

_LAZY = {"load": "ctxjax.pretrained"}


def __getattr__(name: str):
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'ctxjax' has no attribute {name!r}; public names are {sorted(_LAZY)} and __version__")
