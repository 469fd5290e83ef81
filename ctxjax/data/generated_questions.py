"""Questions of a made-up language in SQuAD's layout, for smoke runs and tests."""

from __future__ import annotations

import functools
import json
import pathlib
import random
import tempfile
from typing import Any

from ctxjax.data.generated import documents, make_tokenizer


@functools.cache
def _folder(count: int) -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory(prefix="ctxjax-generated-")
    make_tokenizer("wordpiece").save(pathlib.Path(folder.name, "tokenizer"))
    for version in ("1.1", "2.0"):
        for split, number, seed in (("train", count, 0), ("dev", count // 6, 1)):
            text = json.dumps({"version": version, "data": _articles(number, seed, version)}, indent=1)
            pathlib.Path(folder.name, f"{split}-v{version}.json").write_text(text)
    return folder


def generated_questions(count: int = 60) -> str:
    """The folder of generated questions, both versions, with a tokenizer, written once a process.

    A question is three words that stand in the context, the answer the one or two words behind them; in version 2.0
    every third question is of words that do not stand there.
    """
    return _folder(count).name


def _articles(count: int, seed: int, version: str) -> list[dict[str, Any]]:
    draw, made = random.Random(f"questions {seed}"), []
    for number, sentences in enumerate(documents(count, seed)):
        words = " ".join(sentences[:8]).split()
        asked: list[dict[str, Any]] = []
        for place in draw.sample(range(len(words) - 5), k=min(4, len(words) - 5)):
            question, answer = words[place : place + 3], words[place + 3 : place + 4 + draw.randint(0, 1)]
            start = len(" ".join(words[: place + 3])) + 1
            one: dict[str, Any] = {"id": f"{seed}-{number}-{place}", "question": " ".join(question)}
            one["answers"] = [{"text": " ".join(answer), "answer_start": start}]
            if version == "2.0":
                one["is_impossible"] = len(asked) % 3 == 2
                if one["is_impossible"]:
                    one |= {"question": " ".join(reversed(question)), "answers": []}
            asked.append(one)
        made.append({"title": f"article {number}", "paragraphs": [{"context": " ".join(words), "qas": asked}]})
    return made
