"""Documents of a made-up language in CoNLL-2012's layout, for smoke runs and tests."""

from __future__ import annotations

import functools
import pathlib
import random
import tempfile

from ctxjax.data.generated import documents, make_tokenizer

NAMES, PRONOUNS = ("ba", "ku"), ("ni",)  # how words end that name an entity, and that stand for the last one named


@functools.cache
def _folder(count: int) -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory(prefix="ctxjax-generated-")
    make_tokenizer("wordpiece").save(pathlib.Path(folder.name, "tokenizer"))
    for split, number, seed in (("train", count, 0), ("development", count // 4, 1), ("test", count // 4, 2)):
        place = pathlib.Path(folder.name, split)
        place.mkdir()
        texts = ["".join(_lines(f"made/{number}", text)) for number, text in enumerate(documents(number, seed))]
        (place / "made.v4_gold_conll").write_text("".join(texts))
    return folder


def generated_documents(count: int = 60) -> str:
    """The folder of generated documents with the three splits and a tokenizer, written once a process.

    The second and the fourth word of a sentence are predicates, whose arguments are the word before and the two words
    behind. A word that names an entity is coreferent with every other of that name, and with those words that stand for
    the last one named.
    """
    return _folder(count).name


def _lines(name: str, sentences: list[str]) -> list[str]:
    lines, numbers, last = [f"#begin document ({name}); part 000\n"], {}, 0
    draw = random.Random(name)
    for sentence in sentences[: draw.randint(3, 6)]:
        words = sentence.split()[:12]
        columns = [_frame(place, len(words)) for place in (1, 3) if place < len(words) - 1]
        for number, word in enumerate(words):
            entity = "-"
            if word.endswith(NAMES):
                last = numbers.setdefault(word, len(numbers) + 1)
                entity = f"({last})"
            elif word.endswith(PRONOUNS) and last:
                entity = f"({last})"
            fields = [name, "0", str(number), word, "NN", "*", "-", "-", "-", "-", "*"]
            lines.append("  ".join([*fields, *(column[number] for column in columns), entity]) + "\n")
        lines.append("\n")
    return [*lines, "#end document\n"]


def _frame(place: int, length: int) -> list[str]:
    column = ["*"] * length
    column[place - 1], column[place] = "(ARG0*)", "(V*)"
    if place + 2 < length:
        column[place + 1], column[place + 2] = "(ARG1*", "*)"
    return column
