"""The direction of imports, and programs that answer --help at once."""

import ast
import pathlib
import resource
import subprocess
import sys

import pytest

from ctxjax.__main__ import PROGRAMS

PACKAGE = pathlib.Path(__file__).parent.parent / "ctxjax"

# Level of each module or folder; a module imports from lower levels or its own folder; tenths
# order those of one level. See docs/design.md, section 1.
LEVELS = {
    "types": 0, "tree": 0, "rngs": 0, "config": 0, "paths": 0.1, "digests": 0.2, "__init__": 0, "__main__": 6,
    "metrics": 1, "records": 1, "cli": 1, "processes": 1, "folders": 1, "sharding": 1, "schedules": 1, "text": 1,
    "padding": 2, "data": 2, "models": 2, "objectives": 2, "optim": 2, "progress": 2,
    "step": 3, "checkpoint": 3, "interop": 3, "reading": 3, "inference": 3, "ngrams": 3,
    "generation": 4, "beam_search": 4, "formats": 4, "run": 4, "transfer": 4, "topology": 4, "compiled": 1, "pods": 1,
    "evaluators": 5, "pretrained": 5, "loop": 5, "counted": 5, "suite": 5, "page": 5, "trained": 5, "ledger": 5,
    "prepare": 6, "evaluate": 6, "predict": 6, "embed": 6, "features": 6, "convert": 6, "inspect": 6, "plan": 6,
    "report": 6, "probe": 6, "stages": 0, "probing": 3, "edge_probing": 3, "storing": 3, "comparison": 3,
    "significance": 1, "best": 2, "seeds": 6, "compare": 6, "train": 7, "sweep": 7,
}  # fmt: skip
HEAVY = {"jax", "flax", "optax", "orbax", "grain", "numpy", "tensorflow_datasets", "tokenizers", "h5py", "matplotlib"}
HEAVY |= {"sacrebleu"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def part(module: str) -> str:
    """`ctxjax.models.bert` -> `models`; `ctxjax` itself -> `__init__`."""
    return module.split(".")[1] if "." in module else "__init__"


def name_of(path: pathlib.Path) -> str:
    parts = ("ctxjax", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


def imports(path: pathlib.Path) -> list[str]:
    """Every module imported anywhere in a file, as a dotted name, also inside functions.

    But for `example()`, which makes something small to test with and may take a model to do so.
    """
    found, nodes = [], [ast.parse(path.read_text())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.FunctionDef) and node.name == "example":
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            found += inside if node.module == "ctxjax" else [node.module]
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_arrows_run_down(path):
    here = part(name_of(path))
    assert here in LEVELS, f"ctxjax/{here} has no level: give it one here and in docs/design.md"
    for imported in imports(path):
        if imported.split(".")[0] != "ctxjax" or part(imported) in (here, "__version__"):
            continue
        there = part(imported)
        assert there in LEVELS, f"{path.name} imports {imported}, which has no level"
        assert there == "__init__" or LEVELS[there] < LEVELS[here], f"{here} may not import {there}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_linen_stays_in_models_and_jax_out_of_text(path):
    here = part(name_of(path))
    for imported in imports(path):
        if imported.startswith("flax.linen"):
            assert here == "models"
        if here == "text":
            assert imported.split(".")[0] not in ("jax", "flax", "optax"), f"text imports {imported}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_is_unpickled(path):
    assert not {"pickle", "cloudpickle", "dill", "joblib", "marshal"} & {name.split(".")[0] for name in imports(path)}


def test_every_file_is_short():
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in MODULES}
    assert not {name: length for name, length in lengths.items() if length > 500}


@pytest.mark.parametrize("program", ["", *PROGRAMS])
def test_help_is_quick_and_imports_nothing_heavy(program):
    """Processor time, so that a busy machine does not matter."""
    if program and not (PACKAGE / f"{program}.py").exists():
        pytest.fail(f"ctxjax lists the program {program!r}, which does not exist")
    module = f"ctxjax.{program}" if program else "ctxjax"
    script = (
        f"import runpy, sys; sys.argv = [{module!r}, '--help']\n"
        f"try: runpy.run_module({module!r}, run_name='__main__', alter_sys=True)\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "print('HEAVY', *sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.splitlines()[-1].split()[1:])
    assert not loaded & HEAVY
    assert (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime) < 0.6
    assert len(done.stdout.splitlines()) > 3
