"""BLiMP: of two sentences that differ in one point of grammar, does the model find the right one more probable?

Reference: Warstadt et al. 2020, "BLiMP: The Benchmark of Linguistic Minimal Pairs for English"; masked models by their
pseudo-log-likelihood, as Salazar et al. 2020 do.
"""

from __future__ import annotations

import pathlib
import re
import tarfile
from collections.abc import Iterator
from typing import Any

from ctxjax.config import ConfigError
from ctxjax.evaluators import reading

_FIELDS = ("sentence_good", "sentence_bad", "field", "UID")


class Evaluator:
    """Accuracy over all paradigms.

    Args:
      pairs: the published files, in a folder or a tar archive; relative to `CTXJAX_DATA`.
      limit: only the first so many pairs of each paradigm; 0 for all (1,000).
    """

    needs = "score"

    def __init__(self, pairs: str, limit: int = 0):
        path = reading.existing("evals.pairs", pairs)
        self.paradigms: dict[str, list[tuple[str, str]]] = {}
        self.fields: dict[str, str] = {}
        for name, text in _files(path):
            kept: list[tuple[str, str]] = []
            for number, line in enumerate(text.splitlines(), start=1):
                record = reading.record_of(line, f"{name}, line {number}", _FIELDS)
                kept.append((record["sentence_good"], record["sentence_bad"]))
                self.fields[record["UID"]] = record["field"]
                if len(kept) == limit:
                    break
            if kept:
                self.paradigms[record["UID"]] = kept
        if not self.paradigms:
            raise ConfigError(f"{path} holds no .jsonl file of BLiMP")

    def run(self, model: Any) -> dict[str, int | float]:
        """accuracy (mean over the paradigms, as published), that of each field of grammar, share of ties, pairs.

        A tie counts half: a model that gives both sentences of a pair the same score is at chance there.
        """
        flat = [(uid, *pair) for uid, pairs in self.paradigms.items() for pair in pairs]
        right: dict[str, list[float]] = {uid: [] for uid in self.paradigms}
        for part in reading.with_bar(flat, "BLiMP"):
            scores = model.score([sentence for _, *pair in part for sentence in pair])
            for (uid, _, _), good, bad in zip(part, scores[::2], scores[1::2]):
                right[uid].append(1.0 if good > bad else 0.5 if good == bad else 0.0)
        means = {uid: sum(hits) / len(hits) for uid, hits in right.items()}
        found = {"accuracy": sum(means.values()) / len(means)}
        for field in sorted(set(self.fields.values())):
            of_field = [mean for uid, mean in means.items() if self.fields[uid] == field]
            found[re.sub("[^a-z]+", "_", field.lower())] = sum(of_field) / len(of_field)
        ties = sum(hits.count(0.5) for hits in right.values())
        return found | {"ties": ties / len(flat), "pairs": len(flat)}


def _files(path: pathlib.Path) -> Iterator[tuple[str, str]]:
    """Name and content of every .jsonl, read in memory; nothing of an archive is written anywhere."""
    if path.is_dir():
        for file in sorted(path.glob("**/*.jsonl")):
            yield str(file), file.read_text(encoding="utf-8")
        return
    try:
        with tarfile.open(path) as archive:
            for member in sorted(archive.getmembers(), key=lambda member: member.name):
                if member.isfile() and member.name.endswith(".jsonl") and member.size < 1 << 24:
                    file = archive.extractfile(member)
                    assert file is not None
                    yield f"{path}: {member.name}", file.read().decode("utf-8")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ConfigError(f"{path} cannot be read as a tar archive ({error})") from None
