"""Scripts outside the package, opened as modules."""

import importlib.util
import os
from types import ModuleType


def opened(path: str | os.PathLike[str]) -> ModuleType:
    """A file under `experiments/` or `launch/` as a module, without running its `main`."""
    spec = importlib.util.spec_from_file_location(os.path.basename(path).removesuffix(".py"), path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
