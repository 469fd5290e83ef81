"""Writes context.ipynb from the cells below, and runs it: `python experiments/notebooks/build.py [--execute]`.

A notebook is easier to review as a program. `--execute` needs the two runs of the demonstration (launch/demo.sh), under
demo/ or where CTXJAX_DEMO says, and the extra [notebook].
"""

from __future__ import annotations

import argparse
import pathlib
import textwrap

HERE = pathlib.Path(__file__).resolve().parent
NOTEBOOK = HERE / "context.ipynb"

CELLS = [
    (
        "markdown",
        """
        # A word's vectors move with its context

        Two models that `bash launch/demo.sh` pretrained on the same hundred articles: a BERT and an ELMo. Each opens
        in one line. We look at one word in sentences that mean two different things by it, and ask of every layer: is a
        use of the word nearer to other uses in the same sense than to uses in the other sense?

        The runs are read from `demo/` in the repository, or from the folder that `CTXJAX_DEMO` names.
        """,
    ),
    (
        "code",
        """
        import os
        import pathlib

        import matplotlib.pyplot as plt
        import numpy as np

        import ctxjax

        here = pathlib.Path.cwd()
        root = next((folder for folder in (here, *here.parents) if (folder / "setup.py").exists()), here)
        demo = pathlib.Path(os.environ.get("CTXJAX_DEMO", root / "demo"))
        models = {"BERT": ctxjax.load(demo / "bert"), "ELMo": ctxjax.load(demo / "elmo")}
        for name, model in models.items():
            print(f"{name}: step {model.meta['step']}, a vocabulary of {len(model.tokenizer):,}, it can {model.can}")
        """,
    ),
    (
        "markdown",
        """
        ## One word, two senses
        """,
    ),
    (
        "code",
        """
        WORD = "state"
        SENSES = {
            "territory": [
                "the governor of the state signed the law .",
                "it is the largest city in the state .",
                "the university is owned by the state of california .",
                "the state borders canada to the north .",
                "the population of the state grew in the last century .",
            ],
            "condition": [
                "the patient was in a state of deep sleep .",
                "water in a solid state is called ice .",
                "the old house was in a poor state .",
                "the mind can reach a state of peace .",
                "the atom returns to its lowest energy state .",
            ],
        }
        sentences = [sentence.split() for group in SENSES.values() for sentence in group]
        sense = np.repeat(np.arange(len(SENSES)), [len(group) for group in SENSES.values()])


        def word_vectors(model):
            \"\"\"[layers, sentences, width]: the word in each sentence.\"\"\"
            return np.stack([text.layers[:, text.words.index(WORD)] for text in model.embed(sentences)], axis=1)


        def cosines(vectors):
            unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
            return unit @ unit.T


        vectors = {name: word_vectors(model) for name, model in models.items()}
        {name: array.shape for name, array in vectors.items()}
        """,
    ),
    (
        "markdown",
        """
        ## Layer by layer

        Layer 0 is the token layer. ELMo's knows no context at all: the word is the same vector in every sentence, with
        a cosine of 1 to itself. BERT's holds the word's place in the sentence, but no other word. Above it, every use
        is a vector of its own; `same` and `other` are mean cosines between uses in one sense and in different senses.
        """,
    ),
    (
        "code",
        """
        same = (sense[:, None] == sense[None, :]) & ~np.eye(len(sense), dtype=bool)
        other = sense[:, None] != sense[None, :]
        print(f"{'':12}{'same':>8}{'other':>8}{'gap':>8}{'nearest use is of the same sense':>36}")
        for name, layers in vectors.items():
            for number, layer in enumerate(layers):
                table = cosines(layer)
                nearest = np.argmax(np.where(np.eye(len(sense), dtype=bool), -2, table), axis=1)
                alike = table.min() > 0.9999  # one vector for all uses: no nearest one
                share = "all alike" if alike else f"{(sense[nearest] == sense).mean():.0%}"
                a, b = table[same].mean(), table[other].mean()
                print(f"{name} layer {number:<2}{a:10.3f}{b:8.3f}{a - b:8.3f}{share:>36}")
        """,
    ),
    (
        "markdown",
        """
        ## Every pair of uses, top layer
        """,
    ),
    (
        "code",
        """
        labels = [f"{list(SENSES)[s][:4]} {i % 5 + 1}" for i, s in enumerate(sense)]
        figure, axes = plt.subplots(1, len(models), figsize=(11, 4.6), layout="constrained")
        for axis, (name, layers) in zip(axes, vectors.items()):
            table = cosines(layers[-1])
            image = axis.imshow(table, cmap="viridis", vmin=table.min(), vmax=1)
            axis.set_xticks(range(len(labels)), labels, rotation=90)
            axis.set_yticks(range(len(labels)), labels)
            axis.set_title(f"{name}, top layer: cosine of '{WORD}'")
            figure.colorbar(image, ax=axis, shrink=0.8)
        plt.show()
        """,
    ),
    (
        "markdown",
        """
        ## In two dimensions

        The two directions in which the ten vectors differ most (principal components of the top layer).
        """,
    ),
    (
        "code",
        """
        figure, axes = plt.subplots(1, len(models), figsize=(11, 4.6), layout="constrained")
        for axis, (name, layers) in zip(axes, vectors.items()):
            centred = layers[-1] - layers[-1].mean(axis=0)
            left, scale, _ = np.linalg.svd(centred, full_matrices=False)
            points = left[:, :2] * scale[:2]
            for number, title in enumerate(SENSES):
                axis.scatter(*points[sense == number].T, label=title, s=60)
            for point, words in zip(points, sentences):
                at = words.index(WORD)
                near = " ".join(words[max(0, at - 2) : at + 3])
                axis.annotate(near, point, fontsize=7, xytext=(4, 3), textcoords="offset points")
            shown = (scale[:2] ** 2).sum() / (scale**2).sum()
            axis.set_title(f"{name}: '{WORD}' in context, {shown:.0%} of the variance")
            axis.legend()
        plt.show()
        """,
    ),
    (
        "markdown",
        """
        ## What the models expect

        BERT fills a mask from both sides; both models say how probable a sentence is. The same words shuffled should be
        less probable. (A biLM gives a log-probability, a masked model a pseudo-log-likelihood: compare within a row.)
        """,
    ),
    (
        "code",
        """
        for text in ("the governor of the [MASK] signed the law .", "she studied at the [MASK] of london ."):
            [filled] = models["BERT"].fill_mask(text, 5)
            print(text, " ".join(f"{piece} {chance:.2f}" for piece, chance in filled), sep="\\n    ")

        shuffled = [list(np.random.default_rng(0).permutation(words)) for words in sentences]
        for name, model in models.items():
            a, b = model.score(sentences, per_token=True), model.score(shuffled, per_token=True)
            print(f"{name}: {a.mean():.2f} nats a token as written, {b.mean():.2f} shuffled; ", end="")
            print(f"as written is more probable in {(a > b).sum()} of {len(a)}")
        """,
    ),
]


def build():
    """The notebook, without outputs."""
    import nbformat

    notebook = nbformat.v4.new_notebook()
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for number, (kind, source) in enumerate(CELLS):
        make = nbformat.v4.new_markdown_cell if kind == "markdown" else nbformat.v4.new_code_cell
        cell = make(textwrap.dedent(source).strip())
        cell["id"] = f"cell-{number}"  # the same file from the same cells
        notebook.cells.append(cell)
    return notebook


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--execute", action="store_true", help="run every cell and keep what it shows")
    parser.add_argument("--output", type=pathlib.Path, default=NOTEBOOK)
    options = parser.parse_args()
    import nbformat

    notebook = build()
    if options.execute:
        from nbclient import NotebookClient

        root = HERE.parents[1]
        NotebookClient(
            notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(root)}}
        ).execute()
    nbformat.write(notebook, options.output)
    print(f"wrote {options.output}{' with its outputs' if options.execute else ''}")


if __name__ == "__main__":
    main()
