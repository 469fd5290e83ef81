"""plan: FLOPs against compiled programs, memory against placed arrays, collectives against hand-made ones, slices."""

import functools
import importlib
import importlib.util
import json
import math
import pkgutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import ctxjax.objectives
from ctxjax import compiled, plan, sharding, topology
from ctxjax import config as configs
from ctxjax import run as runs
from ctxjax.config import ConfigError
from ctxjax.models.layers.attention import attention
from ctxjax.step import Forward
from tests.scripts import opened

BERT, ELMO = "experiments/bert/pretrain.py", "experiments/elmo/pretrain.py"
OBJECTIVES = [
    name
    for _, name, _ in pkgutil.iter_modules(ctxjax.objectives.__path__)
    if hasattr(importlib.import_module(f"ctxjax.objectives.{name}"), "example")
]
needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the extra [tpu]")

# Wide enough that products are nearly all of the work; `tiny()` itself spends half of it on activations and norms.
WIDER = {
    "bert": {"width": 128, "mlp_dim": 512},
    "gpt2": {"width": 128, "mlp_dim": 512},
    "bilm": {"width": 128, "projection": 64, "vocab_size": 512, "filters": ((1, 32), (3, 64)), "each_distinct": False},
    "word2vec": {"width": 512},
    "fasttext": {"width": 512, "labels": tuple(map(str, range(300)))},
    "glove": {"width": 512},
    "taglm": {"width": 256, "embed_width": 64, "chars": "none"},
    "downstream": {
        "encoder": {"name": "bert", "vocab_size": 53, "width": 128, "depth": 2, "num_heads": 2, "mlp_dim": 512}
    },
}


def forward_of(name, **wider):
    """An objective's example, with its model widened, as a function of parameters, and the shapes that it takes."""
    model, objective, batch = importlib.import_module(f"ctxjax.objectives.{name}").example()
    model = model.clone(**{key: value for key, value in wider.items() if hasattr(model, key)})
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), batch["inputs"], method="touch")["params"])
    carry = model.init_carry(len(batch["targets"]))

    def forward(params):
        return objective(Forward(model, params, jax.random.key(0), train=True), batch, carry)

    return forward, params, objective.flops(model, batch)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_flops_against_an_unrolled_compile(name, monkeypatch):
    """The compiler counts the body of a scan once, so scans are unrolled; it counts all operations, we the products."""
    for loop in ("scan", "fori_loop"):
        monkeypatch.setattr(jax.lax, loop, functools.partial(getattr(jax.lax, loop), unroll=True))
    kind = importlib.import_module(f"ctxjax.objectives.{name}").example()[0].__class__.__module__.rpartition(".")[2]
    forward, params, ours = forward_of(name, **WIDER[kind])
    counted = jax.jit(forward).lower(params).compile().cost_analysis()["flops"]
    assert 0.85 * counted < ours < counted


def products(jaxpr, times=1.0):
    """FLOPs of the matrix products and convolutions of a jaxpr, with loops as often as they run."""
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += 2.0 * times * math.prod(equation.outvars[0].aval.shape) * math.prod(shape[i] for i in contracted)
        elif equation.primitive.name == "conv_general_dilated":
            kernel, out = equation.invars[1].aval.shape, equation.params["dimension_numbers"].rhs_spec[0]
            total += 2.0 * times * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) / kernel[out]
        inside = times * (equation.params["length"] if equation.primitive.name == "scan" else 1)
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                total += products(inner, inside) if hasattr(inner, "eqns") else 0.0
    return total


@pytest.mark.parametrize("name", OBJECTIVES)
def test_flops_of_tiny_are_those_of_its_products(name):
    forward, params, ours = forward_of(name, each_distinct=False)
    assert ours == pytest.approx(products(jax.make_jaxpr(forward)(params).jaxpr), rel=0.03)


@pytest.mark.parametrize("config", [f"{BERT}:smoke", f"{ELMO}:smoke"])
@pytest.mark.parametrize("sizes", [(8, 1, 1), (1, 8, 1), (2, 2, 2)])
def test_memory_is_that_of_placed_arrays(config, sizes):
    config = configs.load(config)
    configs.override(config, {f"mesh.{name}": str(size) for name, size in zip(("data", "fsdp", "tensor"), sizes)})
    memory = plan.make_plan(config, jax.devices())["memory_bytes"]
    run = runs.assemble(config)
    mesh = runs.make_mesh(config)
    abstract, _ = runs.placed(run, mesh, held=True)
    state = jax.tree.map(lambda leaf: jax.device_put(np.zeros(leaf.shape, leaf.dtype), leaf.sharding), abstract)
    for name, part in (("parameters", state.params), ("optimizer", state.opt_state), ("carry", state.carry)):
        placed = [leaf.addressable_shards[0].data for leaf in jax.tree.leaves(part)]
        assert memory[name] == sum(leaf.size * leaf.dtype.itemsize for leaf in placed), name
    assert memory["gradient"] == memory["parameters"]


def planned(capsys, *arguments):
    code = plan.main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_needs_no_corpus(capsys, monkeypatch):
    monkeypatch.delenv("CTXJAX_DATA", raising=False)
    code, found = planned(capsys, "--config", f"{BERT}:size=base", "--peak-tflops", "100", "--mfu", "0.5")
    assert code == 0
    assert found["parameters"]["total"] == 110_106_428
    held = 110_106_428 + (30_592 - 30_522) * (768 + 1)  # the table and the bias of the words, to a multiple of 128
    assert found["memory_bytes"]["optimizer"] == 2 * 4 * held + 4  # two slots and the count
    assert found["tokens_per_step"] == 256 * 128 and found["tokens_are_positions"]
    assert found["tokens_per_pass"] is None and found["total_steps"] == 900_000
    assert found["step_seconds"] == pytest.approx(found["flops_per_step"] / 50e12)
    # The rule of thumb: six FLOPs a parameter and token; here of the layers alone, tables being looked up.
    assert found["flops_per_token"] == pytest.approx(6 * found["parameters"]["layers"], rel=0.15)


def test_published_elmo_without_its_softmax_has_93_6_million(capsys):
    _, found = planned(capsys, "--config", ELMO)
    assert found["parameters"]["total"] - found["parameters"]["head"] == 93_600_848
    assert found["total_steps"] is None  # ten epochs of nobody knows what


def test_with_a_corpus_lengths_are_real(capsys):
    _, found = planned(capsys, "--config", f"{ELMO}:smoke")
    config = configs.load(f"{ELMO}:smoke")
    run = runs.assemble(config)
    assert found["steps_per_pass"] == run.steps_per_pass > 1
    assert found["tokens_per_pass"] == run.steps_per_pass * 16 * 8
    assert not found["tokens_are_positions"]


def test_the_page_says_what_fell_back(capsys):
    plan.main(["--config", f"{BERT}:size=tiny", "--devices", "4", "--config.mesh.fsdp=4"])
    page = capsys.readouterr().out
    assert "note: head/mlm/bias [30522] is replicated: fsdp=4 divides none of its axes" in page
    assert "not known without --config.source.corpus" in page
    assert "give --peak-tflops" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.mesh.data=3", "--devices", "4"], "does not multiply to the 4 devices"),
        (["--devices", "5"], "is not a multiple of 5"),
        (["--devices", "0"], "--devices=0 must be at least 1"),
        (["--mfu", "40"], "--mfu=40.0 is not between 0 and 1"),
        (["--config.mode.depth=3"], "did you mean 'model.depth'"),
        (["--config.model.num_head=3"], "did you mean 'model.num_heads'"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        plan.main(["--config", f"{BERT}:size=tiny", *arguments])


# --- compiled modules ---

MODULE = """
HloModule step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[]{:T(128)} parameter(0)
  %y = f32[]{:T(128)} parameter(1)
  ROOT %sum = f32[]{:T(128)} add(%x, %y)
}

%all-reduce-scatter.1 (input: f32[64,32]) -> f32[16,32] {
  %input = f32[64,32]{1,0:T(8,128)} parameter(0)
  %all-reduce.9 = f32[64,32]{1,0:T(8,128)} all-reduce(%input), channel_id=8, replica_groups={{0,1,2,3}}, to_apply=%add
  ROOT %slice = f32[16,32]{1,0:T(8,128)} dynamic-slice(%all-reduce.9), dynamic_slice_sizes={16,32}
}

%inner (p: (s32[], bf16[8,16])) -> (s32[], bf16[8,16]) {
  %p = (s32[], bf16[8,16]{1,0}) parameter(0)
  %part = bf16[8,16]{1,0} get-tuple-element(%p), index=1
  %all-gather.1 = bf16[32,16]{1,0} all-gather(%part), channel_id=3, dimensions={0}
  ROOT %out = (s32[], bf16[8,16]{1,0}) tuple(%part)
}

%inner_condition (p.1: (s32[], bf16[8,16])) -> pred[] {
  %p.1 = (s32[], bf16[8,16]{1,0}) parameter(0)
  %five = s32[]{:T(128)} constant(5)
  ROOT %lt = pred[] compare(%p.1, %five), direction=LT
}

%start_part (q: bf16[8,16]) -> bf16[32,16] {
  %q = bf16[8,16]{1,0} parameter(0)
  ROOT %all-gather.2 = bf16[32,16]{1,0} all-gather(%q), channel_id=4, dimensions={0}
}

%done_part (r: bf16[8,16]) -> bf16[32,16] {
  %r = bf16[8,16]{1,0} parameter(0)
  ROOT %all-gather.3 = bf16[32,16]{1,0} all-gather(%r), channel_id=4, dimensions={0}
}

%outer (s: (s32[], bf16[8,16])) -> (s32[], bf16[8,16]) {
  %s = (s32[], bf16[8,16]{1,0}) parameter(0)
  %again = (s32[], bf16[8,16]{1,0}) while(%s), condition=%inner_condition, body=%inner
  %piece = bf16[8,16]{1,0} get-tuple-element(%again), index=1
  %begun = bf16[32,16]{1,0} fusion(%piece), kind=kCustom, calls=%start_part
  %ended = bf16[32,16]{1,0} fusion(%piece), kind=kCustom, calls=%done_part
  ROOT %back = (s32[], bf16[8,16]{1,0}) tuple(%piece)
}

%outer_condition (t: (s32[], bf16[8,16])) -> pred[] {
  %t = (s32[], bf16[8,16]{1,0}) parameter(0)
  ROOT %less = pred[] compare(%t, %t), direction=LT
}

ENTRY %main (a: f32[64,32], b: (s32[], bf16[8,16])) -> f32[16,32] {
  %a = f32[64,32]{1,0} parameter(0)
  %b = (s32[], bf16[8,16]{1,0}) parameter(1)
  %loop = (s32[], bf16[8,16]{1,0}) while(%b), condition=%outer_condition, body=%outer, \
backend_config={"known_trip_count":{"n":"3"}}
  %sent = f32[64,32]{1,0} collective-permute(%a), channel_id=1, source_target_pairs={{0,1}}
  %pair = (f32[64,32]{1,0}, f32[64,32]{1,0}) all-reduce(%a, %sent), channel_id=2, to_apply=%add
  %started = (bf16[8,16]{1,0}, bf16[32,16]{1,0}) all-gather-start(%loop), channel_id=7, dimensions={0}
  ROOT %result = f32[16,32]{1,0} fusion(%a), kind=kCustom, calls=%all-reduce-scatter.1
}
"""


def test_collectives_of_a_module_made_by_hand():
    table, gathered = 64 * 32 * 4, 32 * 16 * 2
    found = compiled.collectives(MODULE)
    assert found["collective-permute"] == (1, table)
    assert found["all-reduce"] == (1, 2 * table)
    assert found["reduce-scatter"] == (1, table)
    assert found["all-gather"][0] == 3 * 5 + 3 + 1  # inner loop, split in two under one channel, outside
    assert found["all-gather"][1] >= 18 * gathered
    assert set(found) == {"collective-permute", "all-reduce", "reduce-scatter", "all-gather"}


@needs_libtpu
def test_bytes_and_collectives_of_a_small_slice(capsys):
    """BERT's smoke step on eight chips: gradients are summed over data, parameters gathered over fsdp."""
    fields = ("--config.mesh.fsdp=2", "--config.mesh.data=4", "--config.model.scan=always", "--config.vocab_multiple=1")
    code, found = planned(capsys, "--config", f"{BERT}:smoke", "--topology", "v5e:2x4", *fields)
    step = found["compiled"]
    assert code == 0 and step["fits"] and found["devices"] == 8 and found["device"] == "TPU v5 lite"
    assert step["chip_memory"] == 16 * 2**30
    state = sum(found["memory_bytes"][name] for name in ("parameters", "optimizer", "batch"))
    assert state <= step["arguments"] <= 4 * state + 2**20  # tiles of 8 x 128 are padded
    assert step["collectives"]["all-reduce"]["nbytes"] >= found["memory_bytes"]["parameters"]
    assert jax.default_backend() == "cpu" and jax.device_count() == 8  # as before
    assert found["flops_per_step"] / 8 == 8_225_664
    for figure, middle in {"total": 3.83e6, "accessed": 7.28e5, "sent": 3.37e5}.items():
        assert step[figure] == pytest.approx(middle, rel=0.3), figure
    assert step["roofline"]["links"] == pytest.approx(step["sent"] / 200e9)
    assert step["roofline"]["bound"] == "links"  # so small a model does nothing but talk


@needs_libtpu
def test_slices_that_do_not_exist():
    with pytest.raises(ConfigError, match="'v5e:3x300' is no TPU slice, as v4"):
        topology.slice_devices("v5e:3x300")


@pytest.mark.slow
@needs_libtpu
def test_a_step_that_does_not_fit_is_refused():
    done = subprocess.run(
        [sys.executable, "-m", "ctxjax.plan", "--config", f"{BERT}:size=large", "--topology", "v5e:2x2"]
        + ["--config.batch_size=8192", "--config.model.depth=2"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 1, done.stderr
    assert "does not fit" in done.stdout


@pytest.mark.slow
@needs_libtpu
@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        ([f"{BERT}:size=large"], 336_226_108),
        ([f"{ELMO}:size=published", "--config.mesh.fsdp=8", "--config.mesh.tensor=2"], 500_651_471),
    ],
    ids=["bert-large", "elmo"],
)
def test_published_sizes_fit_a_v5e_16x16(config, parameters):
    done = subprocess.run(
        [sys.executable, "-m", "ctxjax.plan", "--topology", "v5e:16x16", "--json", "--config", *config],
        capture_output=True,
        text=True,
        timeout=3000,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    found = json.loads(done.stdout)
    assert found["devices"] == 256 and found["parameters"]["total"] == parameters
    assert found["compiled"]["fits"] and found["compiled"]["total"] < 16 * 2**30
    assert found["compiled"]["collectives"]


@pytest.mark.slow
@needs_libtpu
@pytest.mark.parametrize("options", [{"causal": True}, {"window": 64}, {}], ids=["causal", "window", "all"])
def test_the_attention_of_tpus_compiles_for_a_slice(options):
    """Forward and backward, of packed and padded rows, on a mesh with all three axes; no array of scores is there."""
    mesh = sharding.make_mesh(2, 2, 2, devices=topology.slice_devices("v5e:2x4"))
    where = lambda *spec: NamedSharding(mesh, P(("data", "fsdp"), None, *spec))
    place = lambda shape, dtype, *spec: jax.ShapeDtypeStruct(shape, dtype, sharding=where(*spec))
    leaf = place((8, 1024, 4, 64), jnp.bfloat16, "tensor", None)
    mask, packs = place((8, 1024), jnp.bool_), place((8, 1024), jnp.int32)

    def loss(implementation):
        def of(query, key, value, mask, packs):
            out = attention(query, key, value, mask, pack_ids=packs, implementation=implementation, **options)
            return jnp.square(out.astype(jnp.float32)).sum()

        return sharding.on(mesh, jax.grad(of, argnums=(0, 1, 2)))

    program = lambda name: jax.jit(loss(name)).lower(leaf, leaf, leaf, mask, packs).compile().as_text()
    text = program(None)
    assert text.count('custom_call_target="tpu_custom_call"') == 3  # forward, of the queries, of keys and values
    assert "1024,1024]" not in text and "1024,1024]" in program("xla")


@pytest.mark.slow
@needs_libtpu
@pytest.mark.parametrize("remat", ["none", "full"])
def test_a_step_with_the_attention_of_tpus_compiles_for_a_slice(capsys, remat):
    """GPT-2's smoke model on rows of 512: by itself, and asked for on a machine without a TPU."""
    small = ["--config", "experiments/gpt2/pretrain.py:smoke", "--topology", "v5e:2x4"]
    small += ["--config.model.max_len=512", "--config.source.length=512", f"--config.model.remat={remat}"]
    small += ["--config.model.attention_implementation=flash", "--config.mesh.tensor=2"]
    code, found = planned(capsys, *small)
    assert code == 0 and found["compiled"]["fits"] and found["device"] == "TPU v5 lite"


@pytest.mark.slow
@needs_libtpu
def test_a_row_of_the_table_of_pods_stays_in_its_band():
    """BERT-large on eight chips as `experiments/pods/table.py` has it: what a later change must not double."""
    driver = opened("experiments/pods/table.py")
    found = driver.compile_one("BERT large", "v5e-8")
    bands = {"flops": (3.85e12, 0.001), "memory": (6.79e9, 0.1), "accessed": (19.5e9, 0.1), "sent": (1.97e9, 0.05)}
    for figure, (middle, width) in bands.items():
        assert found[figure] == pytest.approx(middle, rel=width), figure
