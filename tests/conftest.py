"""What all tests share: eight virtual CPU devices, strict ranks, executed shape annotations, the data root."""

import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the time of these tests is compilation, and most of that is optimisation, which pays for no tiny model.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0")

import hypothesis
import jaxtyping
import pytest

jaxtyping.install_import_hook("ctxjax", "beartype.beartype")

import jax  # noqa: E402 - after the hook and the device count

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(__file__).parent.parent / ".jax_cache"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


# The same examples in every run; --hypothesis-profile=default draws new ones.
hypothesis.settings.register_profile("ctxjax", derandomize=True, deadline=None)
hypothesis.settings.load_profile("ctxjax")


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="run the tests marked slow too")


def pytest_collection_modifyitems(config, items):
    skip_slow = pytest.mark.skip(reason="slow: run with --all")
    skip_data = pytest.mark.skip(reason="real data: set CTXJAX_DATA to the data root")
    skip_gpu = pytest.mark.skip(reason="needs an NVIDIA GPU")
    for item in items:
        if "slow" in item.keywords and not config.getoption("--all"):
            item.add_marker(skip_slow)
        if "real_data" in item.keywords and not os.environ.get("CTXJAX_DATA"):
            item.add_marker(skip_data)
        if "gpu" in item.keywords and jax.default_backend() != "gpu":
            item.add_marker(skip_gpu)


@pytest.fixture
def data_root() -> pathlib.Path:
    """The folder of real data outside the repository."""
    return pathlib.Path(os.environ["CTXJAX_DATA"])
