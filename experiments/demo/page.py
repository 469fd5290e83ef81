"""The demonstration's last stage: `python experiments/demo/page.py demo` writes results.html, curves.png, results.json.

Reads the two finished runs and the prepared corpora under the folder; trains nothing. Everything on the page is
computed here from held-out articles, beside what counting knows (`ngrams.py`).
"""

from __future__ import annotations

import argparse
import base64
import html
import json
import math
import pathlib
import re
import sys
from typing import Any

import numpy as np
from ngrams import Bigram

import ctxjax
from ctxjax import metrics
from ctxjax.data.corpus import Corpus

MASKED = (
    "the capital of the country is the largest [MASK] in the region .",
    "he was born in 1809 and died [MASK] 1865 .",
    "she studied at the university [MASK] received a degree in law .",
    "in the second half [MASK] the century , the population grew .",
    "the film was nominated for an academy [MASK] .",
)
# One word, two senses, each with a query sentence; neighbours are looked up among the articles' own sentences.
WORD = "state"
SENSES = {
    "a territory with a government": "the governor of the state signed the law .",
    "a condition": "the patient was in a state of deep sleep .",
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, help="the demonstration's folder")
    folder = parser.parse_args(argv).folder
    results = {"bert": bert_results(folder), "elmo": elmo_results(folder)}
    draw_curves(folder, results)
    bert, elmo = ctxjax.load(folder / "bert"), ctxjax.load(folder / "elmo")
    filled = [(text, bert.fill_mask(text, 5)[0]) for text in MASKED]
    sentences = sentences_with(WORD, folder / "wikipedia.jsonl")
    neighbours = {name: senses(model, sentences) for name, model in (("BERT", bert), ("ELMo", elmo))}
    (folder / "results.json").write_text(json.dumps(results, indent=1))
    (folder / "results.html").write_text(page(folder, results, filled, neighbours, len(sentences)))
    print(summary(results))
    return 0


def bert_results(folder: pathlib.Path) -> dict[str, Any]:
    """Masked LM on held-out articles beside unigram and bigram guesses at the same kind of tokens."""
    last, curve = read_metrics(folder / "bert")
    train, held_out = Corpus(folder / "pieces"), Corpus(folder / "pieces", split="heldout")
    counts = Bigram(train)
    unigram, bigram = counts.unigram(held_out, ends=False), counts.bigram(held_out, ends=False)
    return {
        "curve": curve,
        "articles": (train.num_documents, held_out.num_documents),
        "steps": last["step"],
        "tokens": last["tokens"],
        "model": {"nll": last["heldout/mlm"], "accuracy": last["heldout/mlm_accuracy"]},
        "next_sentence_accuracy": last["heldout/nsp_accuracy"],
        "unigram": vars(unigram),
        "bigram": vars(bigram),
    }


def elmo_results(folder: pathlib.Path) -> dict[str, Any]:
    """Perplexity of both directions on held-out articles beside unigrams and bigrams, sentence ends included."""
    last, curve = read_metrics(folder / "elmo")
    counts, held_out = Bigram(Corpus(folder / "words")), Corpus(folder / "words", split="heldout")
    unigram, bigram = counts.unigram(held_out, ends=True), counts.bigram(held_out, ends=True)
    return {
        "curve": curve,
        "steps": last["step"],
        "tokens": last["tokens"],
        "model": {
            "nll": (last["heldout/forward"] + last["heldout/backward"]) / 2,
            "forward": last["heldout/forward"],
            "backward": last["heldout/backward"],
        },
        "unigram": vars(unigram),
        "bigram": vars(bigram),
    }


def read_metrics(run: pathlib.Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The newest value of every metric, and the lines with one line a step."""
    lines: dict[int, dict[str, Any]] = {}
    for line in metrics.read(run):
        lines.setdefault(line["step"], {}).update(line)
    newest: dict[str, Any] = {}
    for step in sorted(lines):
        newest.update(lines[step])
    return newest, [lines[step] for step in sorted(lines)]


def draw_curves(folder: pathlib.Path, results: dict[str, Any]) -> None:
    """Training and held-out loss of both models over tokens, with the unigram and bigram lines."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.2), constrained_layout=True)
    titles = {"bert": "BERT: masked LM", "elmo": "ELMo: forward and backward LM"}
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        result = results[name]
        terms = {"bert": ["mlm"], "elmo": ["forward", "backward"]}[name]
        for color, term in zip(("tab:blue", "tab:orange"), terms):
            train = [(line["tokens"] / 1e6, line[term]) for line in result["curve"] if term in line]
            name = f"heldout/{term}"
            held = [(line["tokens"] / 1e6, line[name]) for line in result["curve"] if name in line]
            axis.plot(*zip(*train), color=color, alpha=0.4, label=f"{term}, training")
            axis.plot(*zip(*held), color=color, marker="o", label=f"{term}, held out")
        for counts, style in (("unigram", ":"), ("bigram", "--")):
            axis.axhline(result[counts]["nll"], color="gray", linestyle=style, label=f"{counts}, held out")
        axis.set(title=title, xlabel="million tokens seen", ylabel="nats a token")
        axis.legend(fontsize=8)
    figure.savefig(folder / "curves.png", dpi=110)
    pyplot.close(figure)


def sentences_with(word: str, path: pathlib.Path, most: int = 400) -> list[list[str]]:
    """Sentences of 6 to 40 words that hold the word exactly once, lower-cased and split as the models' words are."""
    found = []
    for line in path.read_text().splitlines():
        for sentence in re.split(r"(?<=[.!?])\s+", json.loads(line)["text"]):
            words = re.findall(r"\w+|[^\w\s]", sentence.lower())
            if 6 <= len(words) <= 40 and words.count(word) == 1:
                found.append(words)
    return found[:most]


def senses(model: Any, sentences: list[list[str]]) -> dict[str, list[tuple[float, str]]]:
    """For each sense's query, the three corpus sentences whose vector of the word is nearest by cosine."""
    queries = [query.split() for query in SENSES.values()]
    vectors = []
    for embedded, words in zip(model.embed(queries + sentences, layers="top"), queries + sentences, strict=True):
        vectors.append(embedded.layers[-1][words.index(WORD)])
    stacked = np.stack(vectors)
    # Contextual vectors share a large common direction; without their mean, cosine compares the contexts.
    stacked = stacked - stacked[len(queries) :].mean(axis=0)
    stacked /= np.linalg.norm(stacked, axis=1)[:, None]
    scores = stacked[: len(queries)] @ stacked[len(queries) :].T
    result = {}
    for sense, row in zip(SENSES, scores, strict=True):
        result[sense] = [(float(row[best]), " ".join(sentences[best])) for best in np.argsort(-row)[:3]]
    return result


def summary(results: dict[str, Any]) -> str:
    """The figures of the page as a few lines for the terminal."""
    bert, elmo = results["bert"], results["elmo"]
    return "\n".join(
        [
            "",
            "held-out articles          unigram    bigram     model",
            "ELMo  perplexity        "
            + "".join(f"{math.exp(elmo[name]['nll']):10.1f}" for name in ("unigram", "bigram", "model")),
            "BERT  perplexity (MLM)  "
            + "".join(f"{math.exp(bert[name]['nll']):10.1f}" for name in ("unigram", "bigram", "model")),
            "BERT  accuracy (MLM)    "
            + "".join(f"{100 * bert[name]['accuracy']:9.1f}%" for name in ("unigram", "bigram", "model")),
            f"BERT  next sentence accuracy {100 * bert['next_sentence_accuracy']:.1f} %",
        ]
    )


def page(
    folder: pathlib.Path,
    results: dict[str, Any],
    filled: list[tuple[str, list[tuple[str, float]]]],
    neighbours: dict[str, dict[str, list[tuple[float, str]]]],
    occurrences: int,
) -> str:
    """The results page, self-contained."""
    bert, elmo = results["bert"], results["elmo"]

    def row(label: str, *cells: str) -> str:
        return f"<tr><th>{label}</th>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"

    def perplexities(result: dict[str, Any]) -> list[str]:
        return [f"{math.exp(result[name]['nll']):.1f}" for name in ("unigram", "bigram", "model")]

    table = "".join(
        [
            "<tr><th></th><td>unigram counts</td><td>bigram counts</td><td>the model</td></tr>",
            row("ELMo, perplexity a word", *perplexities(elmo)),
            row("BERT, perplexity of a masked piece", *perplexities(bert)),
            row(
                "BERT, masked pieces guessed",
                *(f"{100 * bert[name]['accuracy']:.1f} %" for name in ("unigram", "bigram", "model")),
            ),
        ]
    )
    masks = "".join(
        row(html.escape(text), *(f"{html.escape(piece)} <small>{chance:.2f}</small>" for piece, chance in guesses))
        for text, guesses in filled
    )
    near = ""
    for name, found in neighbours.items():
        near += f"<h3>{name}</h3>"
        for sense, query in SENSES.items():
            near += f"<p><b>{html.escape(sense)}</b>: <i>{emphasise(query)}</i></p><ol>"
            near += "".join(f"<li>{emphasise(text)} <small>{score:.2f}</small></li>" for score, text in found[sense])
            near += "</ol>"
    picture = base64.b64encode((folder / "curves.png").read_bytes()).decode()
    if bert["model"]["nll"] < bert["unigram"]["nll"]:
        verdict = """In these minutes it came below that line. A BERT does so by copying first, since one graded
position in ten keeps its piece; the masks below show whether it reads yet, for until then all get much the same
guesses."""
    else:
        verdict = "In these minutes it has NOT YET come below that line."
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>ctxjax: the demonstration</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}}
table{{border-collapse:collapse}}td,th{{padding:.2rem .8rem;border-bottom:1px solid #ddd;text-align:left}}
td{{text-align:right}}img{{max-width:100%}}small{{color:#777}}mark{{background:#fe9}}</style>
<h1>A BERT and an ELMo, pretrained here</h1>
<p>{sum(bert["articles"])} articles of English Wikipedia; {bert["articles"][1]} are held out and give all figures.
ELMo read {elmo["tokens"] / 1e6:.2f} million words in each direction in {elmo["steps"]} steps, BERT
{bert["tokens"] / 1e6:.2f} million word pieces in {bert["steps"]} steps.</p>
<table>{table}</table>
<p>A masked language model learns slowly: it is graded on 15 % of the positions, and for its first millions of tokens it
hovers near the unigram line. {verdict}
<code>bash launch/demo.sh --minutes 60</code> takes it further. Its next-sentence accuracy is
{100 * bert["next_sentence_accuracy"]:.1f} %.</p>
<img alt="learning curves" src="data:image/png;base64,{picture}">
<h2>Filled masks</h2><table>{masks}</table>
<h2>One word, two senses: &ldquo;{WORD}&rdquo;</h2>
<p>The sentences of the corpus ({occurrences} hold the word once) whose vector of <mark>{WORD}</mark> in the top layer
is nearest to that of the query, by cosine after subtracting the mean. A static vector would give both queries the
same list.</p>{near}</html>
"""


def emphasise(text: str) -> str:
    """The sentence as HTML with the word marked."""
    return re.sub(rf"\b{WORD}\b", f"<mark>{WORD}</mark>", html.escape(text))


if __name__ == "__main__":
    sys.exit(main())
