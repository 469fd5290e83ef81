"""Raw text -> tokenised shards with a vocabulary and a manifest.

    python -m ctxjax.prepare --input PATH... --output DIR
    python -m ctxjax.prepare --pairs SOURCE TARGET --output DIR

Inputs are files, folders and globs of plain text or JSON lines (each also .gz .bz2 .xz .zst), or
`tfds:NAME[/config][:split]`. `--runner` does it on many machines. The same command continues after a kill.
docs/data.md has the formats and the guarantees.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ctxjax import cli

RULES: dict[str, tuple[type, str]] = {
    "min_words": (int, "fewer words (Gopher: 50)"),
    "max_words": (int, "more words (Gopher: 100000)"),
    "min_mean_word": (float, "shorter words on average, in characters (Gopher: 3)"),
    "max_mean_word": (float, "longer words on average (Gopher: 10)"),
    "max_symbols": (float, "more hash signs or ellipses a word (Gopher: 0.1)"),
    "max_bullets": (float, "a larger share of lines that begin with a bullet (Gopher: 0.9)"),
    "max_ellipses": (float, "a larger share of lines that end with an ellipsis (Gopher: 0.3)"),
    "min_letters": (float, "a smaller share of words with a letter (Gopher: 0.8)"),
    "min_stop_words": (int, "fewer of the, be, to, of, and, that, have, with (Gopher: 2)"),
    "max_repeated_lines": (float, "a larger share of lines that stood before (Gopher: 0.3)"),
    "max_repeated_trigrams": (float, "a larger share of characters in trigrams that stood before"),
    "min_sentences": (int, "fewer ends of sentences (C4: 5)"),
    "no_code": (bool, "a curly bracket, or lorem ipsum (C4)"),
    "language": (str, "another language (ISO 639-1 codes; pip install 'ctxjax[language]')"),
}


def make_parser() -> argparse.ArgumentParser:
    """The flags; all default to None, so that a config can be told from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m ctxjax.prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", nargs="+", metavar="PATH", help="what to read, see above")
    parser.add_argument(
        "--pairs",
        nargs=2,
        metavar=("SOURCE", "TARGET"),
        help="parallel text instead: line n of one file translates line n of the other; one vocabulary for both",
    )
    parser.add_argument("--output", metavar="DIR", help="folder of the corpus")
    parser.add_argument(
        "--format",
        choices=("auto", "documents", "sentences", "jsonl"),
        help="documents: one a file, split into sentences by rule; sentences: one a line, blank lines between "
        "documents; jsonl: one JSON object a line; auto (default) looks at names and beginnings",
    )
    parser.add_argument("--field", help="field of JSON objects or TFDS records that holds the text (default: text)")
    parser.add_argument(
        "--tokenizer",
        choices=("wordpiece", "words", "bpe", "byte_bpe"),
        help="kind of vocabulary (default: wordpiece); bpe is GPT's; byte_bpe is GPT-2's and keeps every "
        "character of a document",
    )
    parser.add_argument(
        "--vocab",
        metavar="FILE",
        help="use this vocab.txt or encoder.json (its merges beside it), or the tokenizer folder of another corpus",
    )
    parser.add_argument(
        "--vocab_size",
        type=int,
        metavar="N",
        help="learn at most N pieces (default: 30522; words: 793471; bpe: 40478; byte_bpe: 50257)",
    )
    parser.add_argument("--min_count", type=int, metavar="N", help="words rarer than that are unknown (default: 1)")
    case = parser.add_mutually_exclusive_group()
    case.add_argument(
        "--lowercase",
        action="store_true",
        default=None,
        help="lower-case (default for a learned wordpiece or bpe vocabulary; a given one speaks for itself); "
        "byte_bpe then gives back the lower-cased text",
    )
    case.add_argument(
        "--cased", action="store_false", dest="lowercase", help="keep case (default for words and byte_bpe)"
    )
    parser.add_argument(
        "--word_split",
        choices=("rules", "whitespace"),
        help="where words end, for --tokenizer words: by rule (default), or at blanks for text tokenised already",
    )
    parser.add_argument(
        "--marked",
        choices=("script", "fastai"),
        help="lower-case words and mark capitals and repetitions, for --tokenizer words: as ULMFiT's programs did, or "
        "as fastai does since",
    )
    parser.add_argument("--heldout", type=float, metavar="SHARE", help="share of documents held out (default: 0.02)")
    parser.add_argument(
        "--heldout_input", nargs="+", metavar="PATH", help="hold out these instead, and nothing of --input"
    )
    parser.add_argument(
        "--duplicates",
        choices=("keep", "exact", "near"),
        help="documents that are equal, or nearly so by MinHash: kept and counted (default), equal ones left out, or "
        "near ones too (pip install 'ctxjax[dedup]'), so that the one of smallest hash stays",
    )
    rules = parser.add_argument_group(
        "documents that are left out", "rules of Gopher and C4, off unless they are given"
    )
    for name, (kind, text) in RULES.items():
        options = {"action": "store_true", "default": None} if kind is bool else {"type": kind, "metavar": "N"}
        if name == "language":
            options = {"nargs": "+", "metavar": "CODE"}
        rules.add_argument(f"--{name}", help=text, **options)
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
    parser.add_argument(
        "--runner",
        metavar="NAME",
        help="run under Apache Beam instead: DirectRunner, DataflowRunner, FlinkRunner, SparkRunner, ... "
        "(pip install 'ctxjax[beam]'); the corpus is the same to the byte",
    )
    parser.add_argument(
        "--runner_options",
        nargs="+",
        metavar="NAME=VALUE",
        help="options of the runner without their dashes, as in project=P region=R temp_location=gs://B/temp",
    )
    cli.add_config(parser, required=False)
    return parser


def settings_from(argv: list[str] | None = None) -> Any:
    """`building.Settings` from the command line over a config over the defaults.

    Raises:
      ConfigError: a missing or unknown field.
    """
    args, config = cli.parse(make_parser(), argv)
    import dataclasses

    from ctxjax.config import ConfigError, did_you_mean, to_dict
    from ctxjax.data.filters import Filters
    from ctxjax.data.preparation import Settings

    known = [field.name for field in dataclasses.fields(Settings) if field.name != "rules"] + list(RULES)
    values = {name: value for name, value in to_dict(config).items() if value is not None} if config else {}
    for name in values:
        if name not in known:
            raise ConfigError(f"config.{name} is not a field of prepare{did_you_mean(name, known)}")
    values |= {name: value for name, value in vars(args).items() if name in known and value is not None}
    if not (values.get("input") or values.get("pairs")):
        raise ConfigError("--input is missing")
    if not values.get("output"):
        raise ConfigError("--output is missing")
    for name in ("input", "heldout_input", "pairs", "runner_options"):
        given = values.get(name) or ()
        values[name] = (given,) if isinstance(given, str) else tuple(given)
    rules = {name: values.pop(name) for name in RULES if name in values}
    if language := rules.get("language"):
        rules["language"] = (language,) if isinstance(language, str) else tuple(language)
    return Settings(**values, rules=Filters(**rules))


def summary(manifest: dict[str, Any], output: str) -> str:
    """What was made and what was left out, for people."""
    lines = [f"{output}: {manifest['tokenizer']['kind']} vocabulary of {manifest['tokenizer']['pieces']:,} pieces"]
    for split, counts in manifest["splits"].items():
        lines.append(
            f"  {split:<8} {counts['documents']:>12,} documents {counts['sentences']:>14,} sentences "
            f"{counts['tokens']:>16,} tokens in {len(counts['shards'])} shards"
        )
    if "heldout" not in manifest["splits"] and manifest["settings"]["heldout"]:
        lines.append("  heldout  nothing: there is only one distinct document")
    for title in ("dropped", "repaired"):
        for reason, number in manifest[title].items():
            lines.append(f"  {title:<8} {number:>12,} {reason}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the program."""
    settings = settings_from(argv)
    if settings.runner:
        from ctxjax.data.beam_building import prepare
    else:
        from ctxjax.data.building import prepare
    manifest = prepare(settings)
    print(summary(manifest, settings.output), file=sys.stdout)
    return 0


if __name__ == "__main__":
    cli.main_guard(main)
