"""What is prepared how: the settings, what they come to, and whether a folder holds the same thing already."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ctxjax.config import ConfigError, fingerprint
from ctxjax.data import corpus, duplicates, filters, parallel, piecework, reading, tfds_records, tfds_text
from ctxjax.data.arrays import replace
from ctxjax.text import open_tokenizer
from ctxjax.text.tokenizer import Tokenizer

WORK = ".prepare"
SIZES = {"wordpiece": 30522, "words": 793471, "bpe": 40478, "byte_bpe": 50257}  # of the published vocabularies


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is prepared how; the fields are the flags of the program."""

    input: tuple[str, ...] = ()
    output: str = ""
    pairs: tuple[str, ...] = ()
    format: str = "auto"
    field: str = "text"
    tokenizer: str | None = None
    vocab: str | None = None
    vocab_size: int | None = None
    min_count: int = 1
    lowercase: bool | None = None
    word_split: str | None = None
    marked: str | None = None
    heldout: float = 0.02
    heldout_input: tuple[str, ...] = ()
    duplicates: str = "keep"
    rules: filters.Filters = dataclasses.field(default_factory=filters.Filters)
    workers: int | None = None
    runner: str | None = None
    runner_options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (self.input or self.pairs):
            raise ConfigError("--input names no file")
        if self.pairs and (self.input or self.format != "auto" or len(self.pairs) != 2):
            raise ConfigError("--pairs takes two files, line by line; leave out --input and --format")
        if not self.output:
            raise ConfigError("--output names no folder")
        if self.format not in reading.FORMATS:
            raise ConfigError(f"--format {self.format} is none of {', '.join(reading.FORMATS)}")
        if self.tokenizer not in (None, *SIZES):
            raise ConfigError(f"--tokenizer {self.tokenizer} is none of {', '.join(SIZES)}")
        if self.marked and (self.tokenizer or "words") != "words":
            raise ConfigError(f"--marked is of words, not of {self.tokenizer}; leave it out or give --tokenizer words")
        if self.vocab and self.vocab_size:
            raise ConfigError("--vocab gives the vocabulary, so --vocab_size has nothing to say; leave one of them out")
        if not 0 <= self.heldout < 1:
            raise ConfigError(f"--heldout {self.heldout} is not a share of the documents between 0 and 1")
        if self.heldout_input and self.pairs:
            raise ConfigError("--heldout_input is of --input; the held-out pairs are a share of --pairs (--heldout)")
        if self.heldout_input and self.heldout not in (0, type(self).heldout):
            raise ConfigError(
                "--heldout_input says what is held out, so --heldout has nothing to say; leave one of them out"
            )
        if self.duplicates not in duplicates.KINDS:
            raise ConfigError(f"--duplicates {self.duplicates} is none of {', '.join(duplicates.KINDS)}")
        if self.duplicates == "near":
            duplicates.check()
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"--workers {self.workers} is less than 1")
        if self.runner_options and not self.runner:
            raise ConfigError(
                "--runner_options is of a --runner of Apache Beam; name one, as in --runner DataflowRunner"
            )
        if "://" in self.output and not self.runner:
            raise ConfigError(f"--output {self.output} is no folder of this machine; give --runner, or a folder")

    @property
    def selection(self) -> piecework.Selection:
        """Which documents are taken."""
        return piecework.Selection(self.field, self.rules, self.duplicates)


def given_tokenizer(settings: Settings) -> Tokenizer | None:
    """The tokenizer that `--vocab` names, if it does.

    Raises:
      ConfigError: it is no vocabulary, or one of another kind.
    """
    if not settings.vocab:
        return None
    options: dict[str, Any] = {} if settings.lowercase is None else {"lowercase": settings.lowercase}
    if settings.word_split is not None:
        options["split"] = settings.word_split
    if settings.marked is not None:
        options["marked"] = settings.marked
    tokenizer = open_tokenizer(settings.vocab, **options)
    if settings.tokenizer not in (None, tokenizer.kind):
        raise ConfigError(f"--vocab {settings.vocab} is of kind {tokenizer.kind}, not {settings.tokenizer}")
    return tokenizer


def find_inputs(
    settings: Settings, given: Sequence[str], digests: Callable[[Sequence[str]], Mapping[str, str]] | None = None
) -> list[reading.Input]:
    """Every source of text with its format and digest.

    Args:
      settings: format, field and output.
      given: `settings.input` or `settings.heldout_input`.
      digests: as `reading.describe` takes it.

    Raises:
      ConfigError: an input that is missing, cannot be read, or lies in the output folder.
    """
    output = pathlib.Path(settings.output).resolve()
    names = [item for item in given if item.startswith(tfds_records.PREFIX)]
    files = [item for item in given if item not in names]
    found = reading.describe(reading.find_files(files), settings.format, digests) if files else []
    _outside(output, *(item.path for item in found))
    return found + [tfds_text.describe(name, settings.field) for name in names]


def find_pairs(settings: Settings) -> list[reading.Input]:
    """The two files of `settings.pairs` as one source of text.

    Raises:
      ConfigError: a file that is missing, or one in the output folder, or other numbers of lines.
    """
    found = parallel.describe(*settings.pairs)
    _outside(pathlib.Path(settings.output).resolve(), *settings.pairs)
    return [found]


def _outside(output: pathlib.Path, *paths: str) -> None:
    for path in paths:
        if output in pathlib.Path(path).resolve().parents:
            raise ConfigError(f"input {path} lies in the output folder; choose another --output")


def make_plan(
    settings: Settings,
    inputs: Sequence[reading.Input],
    given: Tokenizer | None,
    heldout: Sequence[reading.Input] = (),
) -> dict[str, Any]:
    """What decides the content of the corpus: options and digests, no paths and no number of workers."""
    if given is not None:
        vocabulary: dict[str, Any] = {"vocab": given.digest()}
    else:
        kind = settings.tokenizer or ("words" if settings.marked else "wordpiece")
        vocabulary = {
            "tokenizer": kind,
            "vocab_size": settings.vocab_size or SIZES[kind],
            "lowercase": settings.lowercase if settings.lowercase is not None else kind in ("wordpiece", "bpe"),
        }
        if kind == "words":
            vocabulary |= {"min_count": settings.min_count, "word_split": settings.word_split or "rules"}
            vocabulary |= {"marked": settings.marked} if settings.marked else {}
    formats = {item.format for item in (*inputs, *heldout)}
    plain = {"sentences", "documents", parallel.FORMAT}  # which have no fields
    field = settings.field if formats - plain else None
    chosen = {"heldout": settings.heldout, "field": field}
    chosen |= {"duplicates": settings.duplicates} if settings.duplicates != "keep" else {}
    chosen |= json.loads(json.dumps(settings.rules.given()))  # as a manifest gives it back
    plan = {"settings": vocabulary | chosen, "inputs": _about(inputs)}
    return plan | ({"heldout_inputs": _about(heldout)} if heldout else {})


def _about(inputs: Sequence[reading.Input]) -> dict[str, Any]:
    return {
        "number": len(inputs),
        "bytes": sum(item.size for item in inputs),
        "formats": sorted({item.format for item in inputs}),
        "digest": fingerprint([(item.digest, item.format) for item in inputs]),
    }


def _difference(found: dict[str, Any], plan: dict[str, Any]) -> str | None:
    """What another plan has otherwise, by the name of the flag."""
    before, now = found["inputs"], plan["inputs"]
    if before["formats"] != now["formats"]:
        return f"--format {', '.join(before['formats'])}, not {', '.join(now['formats'])}"
    settings, wanted = found["settings"], plan["settings"]
    for name in [*wanted, *settings]:
        if settings.get(name) != wanted.get(name):
            return f"--{name} {settings.get(name)}, not {wanted.get(name)}"
    if found.get("heldout_inputs") != plan.get("heldout_inputs"):
        return "other --heldout_input files or contents"
    return "other --input files or contents" if before != now else None


def finished(output: pathlib.Path, plan: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest of the corpus in a folder, if there is one.

    Raises:
      ConfigError: it was prepared from something else, or otherwise.
    """
    if not (output / corpus.MANIFEST).exists():
        return None
    manifest = corpus.read_manifest(output)
    if not {"settings", "inputs"} <= set(manifest):
        raise ConfigError(f"corpus {output} was made by something else; choose another --output or delete it")
    difference = _difference(manifest, plan)
    if difference:
        raise ConfigError(f"corpus {output} was prepared with {difference}; choose another --output or delete it")
    return manifest


def start_or_continue(output: pathlib.Path, work: pathlib.Path, plan: dict[str, Any]) -> bool:
    """Whether there is unfinished work of the same plan to go on with; clears what a kill cut short.

    Raises:
      ConfigError: the folder holds something else.
    """
    path = work / "plan.json"
    cuts = [reading.PIECE_BYTES, reading.DOCUMENT_BYTES, reading.LINE_BYTES]
    if path.exists():
        found = json.loads(path.read_text())
        difference = _difference(found, plan)
        if not difference and found["cuts"] != cuts:
            difference = "another version of ctxjax"
        if difference:
            raise ConfigError(
                f"{output} holds an unfinished corpus with {difference}; "
                f"give the same options to go on, or choose another --output, or delete {output}"
            )
        for part in output.rglob(".*.part"):  # files that a kill cut short
            part.unlink(missing_ok=True)
        return True
    if any(output.glob("*.array_record")):
        raise ConfigError(f"{output} holds shards of something else; choose another --output")
    part = path.with_suffix(".part")
    part.write_text(json.dumps(plan | {"cuts": cuts}))
    replace(part, path)
    return False


@contextlib.contextmanager
def lock(output: pathlib.Path, work: pathlib.Path) -> Iterator[None]:
    """Be the only process that prepares this folder.

    Raises:
      ConfigError: there is another.
    """
    with open(work / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another process is preparing {output}; wait for it, or stop it") from None
        yield
