"""Every way to compute attention against the formula, forward and backward; what is not held; what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctxjax import sharding
from ctxjax.config import ConfigError
from ctxjax.models.layers import attention as module
from ctxjax.models.layers.attention import attention
from ctxjax.models.layers.dropout import Part, keyed_bits, stream
from ctxjax.models.layers.flash import flash

ROWS, LENGTH, HEADS, WIDTH = 2, 136, 2, 8  # no multiple of a kernel's block
KEY = jax.random.key(0)


def leaves(keys=LENGTH, length=LENGTH):
    sizes = (length, keys, keys)
    drawn = zip(jax.random.split(KEY, 3), sizes)
    return [jax.random.normal(key, (ROWS, size, HEADS, WIDTH)) for key, size in drawn]


def packs(*counts, length=LENGTH):
    """Rows that hold texts of these lengths, and padding behind them."""
    row = np.repeat(np.arange(1, len(counts) + 1), counts)
    return jnp.asarray(np.stack([np.pad(row, (0, length - len(row))), np.ones(length)]).astype(np.int32))


MASK = jnp.arange(LENGTH)[None] < jnp.array([LENGTH, 77])[:, None]
CASES = {
    "all": {},
    "mask": {"mask": MASK},
    "packs": {"pack_ids": packs(50, 70)},
    "packs and mask": {"pack_ids": packs(50, 70) * MASK, "mask": MASK & (packs(50, 70) > 0)},
    "causal": {"causal": True},
    "causal packs": {"causal": True, "pack_ids": packs(50, 70)},
    "window": {"window": 5},
    "window packs mask": {"window": 5, "pack_ids": packs(50, 70), "mask": packs(50, 70) > 0},
    "causal window": {"window": 7, "causal": True},
}


def read(options):
    """Queries whose output means anything: those that see a real key."""
    real = options.get("pack_ids", jnp.ones((ROWS, LENGTH), jnp.int32)) > 0
    return (real & options["mask"] if "mask" in options else real)[:, :, None, None]


def told(function, options, wanted=None, **more):
    """Output where it is read, and the gradients of a sum of it."""
    keep = read(options) if wanted is None else wanted

    def loss(*arrays):
        out = jnp.where(keep, function(*arrays, **options, **more), 0.0)
        return (jnp.sin(3.0 * out)).sum(), out

    gradients, out = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(*leaves())
    return [out, *gradients]


def agree(one, two, atol=2e-5):
    for left, right in zip(one, two, strict=True):
        np.testing.assert_allclose(left, right, atol=atol)


@pytest.mark.parametrize("case", CASES)
def test_xla_is_the_formula(case):
    reference = told(attention, CASES[case], implementation="einsum")
    agree(told(attention, CASES[case], implementation="xla"), reference)
    agree(told(attention, CASES[case]), reference)  # what a CPU has by itself


@pytest.mark.parametrize("case", CASES)
def test_the_kernel_of_tpus_is_the_formula(case):
    """Its program, run by the interpreter; rows of 136 are filled up to two blocks."""
    reference = told(attention, CASES[case], implementation="einsum")
    agree(told(flash, CASES[case], interpret=True), reference)


def test_the_kernel_reads_another_sequence_by_number():
    query, key, value = leaves(keys=70)
    ids = {"pack_ids": packs(50, 86), "key_pack_ids": packs(30, 40, length=70)}
    mask = jnp.ones((ROWS, 70), bool).at[1, 60:].set(False)
    expected = attention(query, key, value, mask, **ids, implementation="einsum")
    np.testing.assert_allclose(flash(query, key, value, mask, **ids, interpret=True), expected, atol=2e-5)
    np.testing.assert_allclose(attention(query, key, value, mask, **ids), expected, atol=2e-5)


def test_the_kernel_is_split_over_the_mesh_as_far_as_it_divides():
    """Rows over data and fsdp, heads over tensor; what a device does is what all do."""
    query, key, value = leaves()
    reference = attention(query, key, value, MASK, causal=True, implementation="einsum")
    for sizes in ((2, 1, 2), (1, 2, 4), (4, 2, 1)):  # heads are two: tensor=4 leaves them; rows are two
        mesh = sharding.make_mesh(*sizes, devices=jax.devices()[: int(np.prod(sizes))])
        run = jax.jit(sharding.on(mesh, functools.partial(flash, causal=True, interpret=True)))
        where = sharding.batch_sharding(mesh) if sizes[0] * sizes[1] == 2 else sharding.replicated(mesh)
        arrays = jax.device_put((query, key, value, MASK), where)
        np.testing.assert_allclose(run(*arrays), reference, atol=2e-5)


@pytest.mark.parametrize("case", CASES)
def test_dropout_by_blocks_is_dropout_at_once(case, monkeypatch):
    """The same draws, so the same numbers; the last block is not full."""
    monkeypatch.setattr(module, "BLOCKED_FROM", 16)
    monkeypatch.setattr(module, "BLOCK", 24)
    drawn = {"rate": 0.3, "rng": stream(jax.random.key(5))}
    reference = told(attention, CASES[case], implementation="einsum", **drawn)
    agree(told(attention, CASES[case], **drawn), reference)
    assert np.abs(reference[0] - told(attention, CASES[case])[0]).max() > 0.1


def test_a_part_has_the_draws_of_the_whole():
    key, shape = stream(KEY), (3, 2, 10, 7)
    whole = keyed_bits(key, shape)
    part = keyed_bits(key, (3, 2, 4, 7), Part(2, jnp.array(5), 10))
    assert (part == whole[:, :, 5:9]).all()


def temporary(length, **options):
    """Bytes that the gradient of attention holds, and the text of the program."""
    shape = jax.ShapeDtypeStruct((2, length, 4, 16), jnp.float32)
    loss = lambda *arrays: jnp.square(attention(*arrays, **options)).sum()
    compiled = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(shape, shape, shape).compile()
    return compiled.memory_analysis().temp_size_in_bytes, compiled.as_text()


def test_dropout_at_512_holds_no_array_of_all_scores():
    drawn = {"rate": 0.1, "rng": stream(KEY)}
    scores = 2 * 4 * 512 * 512 * 4
    blocked, text = temporary(512, **drawn)
    at_once, reference = temporary(512, implementation="einsum", **drawn)
    assert "[2,4,512,512]" in reference and at_once > scores
    assert "512,512]" not in text
    assert "[4,2,4,128,512]" not in text  # nor those of all blocks, kept for the backward pass
    assert blocked < at_once / 2.5


def test_a_query_without_a_key_gives_no_nan():
    query, key, value = leaves()
    nobody = {"pack_ids": packs(50, 70), "key_pack_ids": packs(50, 86), "mask": jnp.zeros((ROWS, LENGTH), bool)}
    for out in (
        attention(query, key, value, **nobody),
        attention(query, key, value, **nobody, implementation="einsum"),
        flash(query, key, value, **nobody, interpret=True),
    ):
        assert np.isfinite(out).all()


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("cudnn", r"attention_implementation='cudnn' needs a GPU, and this is a CPU: leave it empty, or set 'xla'"),
        ("flash", r"attention_implementation='flash' needs a TPU, and this is a CPU"),
        ("fast", r"attention_implementation='fast' is not one of xla, einsum, cudnn, flash"),
    ],
)
def test_what_the_device_lacks_is_one_sentence(name, match):
    with pytest.raises(ConfigError, match=match):
        attention(*leaves(), implementation=name)


def limits(**options):
    return module.Limits(**{"mask": None, "packs": None, "visible": None, "causal": False, "window": None} | options)


def test_a_tpu_has_its_kernel_where_rows_are_long_and_the_mesh_is_known(monkeypatch):
    monkeypatch.setattr(sharding, "platform", lambda: "tpu")
    chosen = lambda length, **more: module.choose(None, *leaves(length, length)[:2], limits(**more))
    assert chosen(512) == "xla"  # eight devices, and nobody says how the arrays lie on them
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        assert chosen(512) == "flash" and chosen(511) == "xla"
        assert chosen(512, visible=jnp.ones((ROWS, 512, 512), bool)) == "xla"
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    assert chosen(600) == "flash"


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES)
def test_cudnn_is_the_formula(case):
    reference = told(attention, CASES[case], implementation="einsum")
    half = lambda *arrays, **options: attention(*(leaf.astype(jnp.bfloat16) for leaf in arrays), **options)
    assert module.choose(None, *(leaf.astype(jnp.bfloat16) for leaf in leaves()[:2]), limits()) == "cudnn"
    agree(told(half, CASES[case], implementation="cudnn"), reference, atol=0.05)
