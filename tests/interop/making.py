"""Small models in their layouts, for the tests of what opens them."""

import numpy as np

from ctxjax.interop import files, hf_bert
from ctxjax.text.wordpiece import SPECIALS, WordPiece
from ctxjax.text.words import Words

WORDS = "the cat sat on a mat bank river money he she ##s ##ing ##er un ##do . , of [ ] é 漢".split()
PIECES = [*SPECIALS, *WORDS, *"bcdefghijklm", *(f"##{c}" for c in "bcdefghijklm")]
SIZES = {
    "vocab_size": len(PIECES),
    "width": 16,
    "depth": 2,
    "num_heads": 4,
    "mlp_dim": 24,
    "max_len": 20,
    "type_vocab_size": 2,
}


def bert(missing=()):
    """A random BERT of ours, far from its initial state, some heads left away."""
    config = {"name": "bert", **SIZES, "next_sentence": "nsp" not in missing}
    rng = np.random.default_rng(1)
    params = {
        path: (0.5 * rng.standard_normal(hf_bert.shape_of(path, config))).astype(np.float32)
        for path in hf_bert.wanted(config["depth"], tuple(missing))
    }
    return files.Published(config, params, WordPiece(PIECES), tuple(missing))


VOCABULARY = ["<S>", "</S>", "<UNK>", "the", "cat", "sat", "on", "mat", ".", "bank", "river"]


def bilm(token="chars", lowercase=False):
    """A random biLM of ours with its softmax."""
    import jax
    import jax.numpy as jnp

    from ctxjax import tree
    from ctxjax.models import bilm

    sizes = {
        "vocab_size": len(VOCABULARY),
        "width": 12,
        "projection": 6,
        "depth": 2,
        "token": token,
        "char_dim": 4,
        "max_chars": 16,
        "filters": ((1, 4), (2, 5), (3, 6)),
        "highways": 1,
    }
    model = bilm.Model(**sizes)
    fields = ("num_chars", "cell_clip", "projection_clip", "residual", "char_activation")
    config = {"name": "bilm", **sizes, **{name: getattr(model, name) for name in fields}}
    inputs = {"mask": jnp.ones((1, 3), bool)}
    inputs |= (
        {"tokens": jnp.zeros((1, 3), jnp.int32)} if token == "words" else {"chars": jnp.zeros((1, 3, 16), jnp.int32)}
    )
    shapes = tree.flatten(jax.eval_shape(lambda: model.init(jax.random.key(0), inputs, method="touch")["params"]))
    rng = np.random.default_rng(2)
    params = {name: (0.4 * rng.standard_normal(leaf.shape)).astype(np.float32) for name, leaf in shapes.items()}
    return files.Published(config, params, Words(VOCABULARY, lowercase=lowercase))


def gpt2_run(folder):
    """The path of a small random GPT-2 in Hugging Face's layout, over pieces of the generated language."""
    from ctxjax.data.generated import make_tokenizer
    from ctxjax.interop import hf_gpt2

    tokenizer = make_tokenizer("byte_bpe")
    sizes = {"width": 16, "depth": 2, "num_heads": 4, "mlp_dim": 32, "max_len": 40}
    config = {"name": "gpt2", "vocab_size": len(tokenizer), **sizes}
    rng = np.random.default_rng(1)
    params = {
        path: (0.3 * rng.standard_normal(hf_gpt2.shape_of(path, config))).astype(np.float32)
        for path in hf_gpt2.names(config["depth"])
    }
    place = folder / "model"
    hf_gpt2.write(place, files.Published(config, params, tokenizer))
    return place
