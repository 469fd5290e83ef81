"""Generated examples of tasks in the made-up language of `generated.py`: which texts are of one topic."""

from __future__ import annotations

import functools
import json
import pathlib
import random
import tempfile
from typing import Any

from ctxjax.data.generated import TOPICS, WORDS, documents, make_tokenizer

COUNTS = {"train": 240, "heldout": 60, "test": 30}


@functools.cache
def _folder(task: str, kind: str) -> tempfile.TemporaryDirectory[str]:
    made = tempfile.TemporaryDirectory(prefix="ctxjax-generated-")
    make_tokenizer(kind).save(pathlib.Path(made.name, "tokenizer"))
    for seed, (split, count) in enumerate(COUNTS.items()):
        lines = [json.dumps(example) + "\n" for example in _examples(task, count, seed)]
        pathlib.Path(made.name, f"{split}.jsonl").write_text("".join(lines))
    return made


def generated_task(task: str, kind: str) -> dict[str, str]:
    """`corpus` and `tokenizer` of a source of a task of `data/tasks/own.py`, written once a process.

    Labels are topics; pairs, whether both texts are of one topic; scores, how many of the words at the same places are;
    the right choice is of the topic of what is shared.
    """
    folder = _folder(task, kind).name
    return {"corpus": folder, "tokenizer": f"{folder}/tokenizer"}


def _examples(task: str, count: int, seed: int) -> list[dict[str, Any]]:
    draw = random.Random(f"examples {seed}")
    kind, choices = task.removeprefix("own.").rstrip("0123456789"), int(task[-1]) if task[-1].isdigit() else 2
    texts: dict[int, list[str]] = {topic: [] for topic in range(TOPICS)}
    for sentences in documents(max(40, count // 4), seed):
        topic = _topics()[sentences[0].split()[0]]
        texts[topic] += [" ".join(sentence.split()[:12]) for sentence in sentences]
    there = [topic for topic in texts if len(texts[topic]) > 1]
    found = []
    for _ in range(count):
        topic = draw.choice(there)
        others = draw.sample([each for each in there if each != topic] * choices, choices)
        text, alike, unlike = draw.choice(texts[topic]), draw.choice(texts[topic]), draw.choice(texts[others[0]])
        if kind == "labels":
            found.append({"texts": [text], "label": f"topic{topic}"})
        elif kind == "pairs":
            same = draw.random() < 0.5
            found.append({"texts": [text, alike if same else unlike], "label": "same" if same else "other"})
        elif kind == "scores":
            share = draw.randint(0, 4)
            mixed = alike.split()[: 3 * share] + unlike.split()[3 * share :]
            found.append({"texts": [text, " ".join(mixed) or alike], "label": float(share)})
        else:
            right = draw.randrange(choices)
            told = [draw.choice(texts[other]) for other in others]
            found.append({"texts": [text, *told[:right], alike, *told[right + 1 :]], "label": right})
    return found


@functools.cache
def _topics() -> dict[str, int]:
    """The topic of every word, as `documents` deals them out."""
    from ctxjax.data.generated import _words

    words = _words(random.Random("language"))
    assert len(words) == WORDS
    return {word: place % TOPICS for place, word in enumerate(words)}
