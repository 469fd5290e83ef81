"""Path names, selection, merging and differences of trees."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxjax import tree


class Pair(NamedTuple):
    first: object
    second: object


PARAMS = {"head": {"mlm": {"kernel": np.zeros((2, 3), np.float32), "bias": np.zeros(3, np.float32)}}}
names = st.text("abc_0", min_size=1, max_size=4)
nested = st.recursive(
    st.integers().map(np.asarray), lambda inner: st.dictionaries(names, inner, min_size=1), max_leaves=8
)


def test_path_names_of_every_kind_of_key():
    flat = tree.flatten({"a": [Pair(1, {"b": 2})]})
    assert flat == {"a/0/first": 1, "a/0/second/b": 2}


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(names, nested, min_size=1))
def test_unflatten_inverts_flatten(value):
    back = tree.unflatten(tree.flatten(value))
    assert jax.tree.structure(back) == jax.tree.structure(value)
    assert tree.flatten(back) == tree.flatten(value)


def test_map_named_hands_over_names_and_all_trees():
    assert tree.map_named(lambda name, a, b: (name, a + b), {"x": {"y": 1}}, {"x": {"y": 2}}) == {
        "x": {"y": ("x/y", 3)}
    }


def test_select_searches_anywhere_in_the_path():
    assert set(tree.select(PARAMS, "bias$")) == {"head/mlm/bias"}
    assert set(tree.select(PARAMS, "mlm")) == {"head/mlm/bias", "head/mlm/kernel"}
    assert tree.select(PARAMS, "^mlm") == {}


def test_merge_replaces_and_refuses_unknown_names():
    merged = tree.merge(PARAMS, {"head/mlm/bias": np.ones(3, np.float32)})
    assert merged["head"]["mlm"]["bias"].sum() == 3
    assert PARAMS["head"]["mlm"]["bias"].sum() == 0
    with pytest.raises(KeyError, match="head/mlm/scale"):
        tree.merge(PARAMS, {"head/mlm/scale": np.ones(3)})


def test_count_and_bytes_of_real_and_abstract_leaves():
    abstract = jax.eval_shape(lambda: {"a": jnp.zeros((2, 5), jnp.bfloat16), "b": jnp.zeros(())})
    assert (tree.count(PARAMS), tree.nbytes(PARAMS)) == (9, 36)
    assert (tree.count(abstract), tree.nbytes(abstract)) == (11, 24)


def test_diff_names_what_is_missing_extra_and_different():
    theirs = {"head": {"mlm": {"kernel": np.zeros((2, 4), np.float32), "scale": np.zeros(3)}}}
    lines = tree.diff(PARAMS, theirs)
    assert lines == [
        "head/mlm/bias is missing",
        "head/mlm/scale is not expected",
        "head/mlm/kernel is float32[2, 4] where float32[2, 3] is expected",
    ]
    assert tree.diff(PARAMS, PARAMS) == []
    half = jax.tree.map(lambda leaf: leaf.astype(np.float16), PARAMS)
    assert len(tree.diff(PARAMS, half)) == 2
