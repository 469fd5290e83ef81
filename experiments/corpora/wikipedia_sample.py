"""The English Wikipedia sample that gensim's wheel carries, as clean prose: JSON lines {"title", "text"}.

    python experiments/corpora/wikipedia_sample.py OUT.jsonl

About a hundred articles, one a line, their paragraphs one a line within the text. Tables, templates, references, file
links, headings, lists and formulas are dropped; a paragraph stays if it ends as a sentence does. Text of Wikipedia is
under CC BY-SA; it is read from the installed package and nothing is downloaded.
"""

from __future__ import annotations

import argparse
import bz2
import html
import json
import os
import pathlib
import re
import sys
import xml.etree.ElementTree as etree
from collections.abc import Iterator

SAMPLE = "test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
# What follows one of these headings is lists.
ENDING = re.compile(
    r"^=+\s*(?:see also|references?|external links|further reading|notes|footnotes|bibliography|citations|sources|"
    r"notes and references|works cited|gallery|publications|selected works|filmography|discography)\s*=+\s*$",
    re.IGNORECASE | re.MULTILINE,
)
# Templates that stand for words of the running text; `*` is the last argument.
KEPT_ARGUMENT = {
    "lang": 1, "transl": -1, "nowrap": 0, "small": 0, "smaller": 0, "quote": 0, "nihongo": 0, "vanchor": 0, "val": 0,
    "abbr": 0, "angbr": 0, "chem": 0, "nobr": 0, "em": 0, "sic": 0, "visible anchor": 0, "circa": 0, "c.": 0,
    "as of": 0, "oldstyledate": 0, "blockquote": 0, "cquote": 0, "linktext": -1, "sup": 0, "sub": 0, "script": -1,
    "illm": 0, "ill": 0, "interlanguage link": 0, "nts": 0, "dts": 0, "number": 0, "pi": 0, "larger": 0, "big": 0,
}  # fmt: skip
PREFIX = {"as of": "as of ", "circa": "c. ", "c.": "c. "}
DASHES = {
    "ndash": " – ",
    "mdash": "—",
    "spaced ndash": " – ",
    "snd": " – ",
    "'": "'",
    "nbsp": " ",
    "pipe": " ",
    "clear": "",
}
UNITS = {
    "sqmi": "square miles", "sqkm": "square kilometres", "km2": "square kilometres", "mi": "miles",
    "ft": "feet", "in": "inches", "lb": "pounds", "acre": "acres", "m3": "cubic metres", "cuft": "cubic feet",
    "C": "°C", "F": "°F", "K": "kelvins", "kph": "km/h", "ha": "hectares", "yd": "yards", "nmi": "nautical miles",
}  # fmt: skip
MONTHS = "January February March April May June July August September October November December".split()
INNERMOST = re.compile(r"\{\{([^{}]*)\}\}")
FORMULA = "\x00"  # marks a paragraph that made sense only with its formula


def articles(path: pathlib.Path) -> Iterator[tuple[str, str]]:
    """(title, wiki text) of every page of the main namespace that is no redirect."""
    title = namespace = text = ""
    with bz2.open(path) as file:
        for _, node in etree.iterparse(file):
            name = node.tag.rpartition("}")[2]
            if name == "title":
                title = node.text or ""
            elif name == "ns":
                namespace = node.text or ""
            elif name == "text":
                text = node.text or ""
            elif name == "page":
                if namespace == "0" and not text.lstrip()[:9].upper().startswith("#REDIRECT"):
                    yield title, text
                node.clear()


def prose(text: str) -> list[str]:
    """The paragraphs of an article."""
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    ending = ENDING.search(text)
    text = text[: ending.start()] if ending else text
    text = re.sub(r"<ref\b[^<>]*/\s*>", "", text, flags=re.IGNORECASE)
    text = re.sub(r"<ref\b[^<>]*>.*?</ref\s*>", "", text, flags=re.IGNORECASE | re.DOTALL)
    text = re.sub(r"<math\b.*?</math>", FORMULA, text, flags=re.IGNORECASE | re.DOTALL)
    for tag in (
        "gallery",
        "source",
        "syntaxhighlight",
        "timeline",
        "table",
        "poem",
        "imagemap",
        "hiero",
        "score",
        "pre",
    ):
        text = re.sub(rf"<{tag}\b.*?</{tag}\s*>", "", text, flags=re.IGNORECASE | re.DOTALL)
    text = templates(text)
    text = balanced(text, "{|", "|}", lambda inside: "\n")
    text = balanced(text, "[[", "]]", link)
    text = re.sub(r"\[(?:https?:|ftp:|mailto:)?//[^\s\]]+(?:\s+([^\]]*))?\]", lambda m: m[1] or "", text)
    text = re.sub(r"<br\s*/?\s*>", " ", text, flags=re.IGNORECASE)
    text = re.sub(r"</?\s*[a-z]+[^<>]*>", "", text, flags=re.IGNORECASE)
    text = html.unescape(text)
    text = re.sub(r"'{2,5}(?!')", "", text)
    text = re.sub(r"__[A-Z]+__", "", text)
    return [line for line in map(tidy, text.split("\n")) if is_prose(line)]


def templates(text: str) -> str:
    """Expand or drop templates, the innermost first."""
    while True:
        shorter = INNERMOST.sub(lambda match: template(match[1]), text)
        if shorter == text:
            return re.sub(r"\{\{|\}\}", "", text)
        text = shorter


def template(inside: str) -> str:
    """The words that a template stands for, if it stands for words."""
    # A link within a template has bars of its own.
    parts = [part.replace("\x01", "|") for part in re.sub(r"\[\[[^\[\]]*\]\]", _hide_bars, inside).split("|")]
    name = parts[0].strip().lower().replace("_", " ")
    plain = [part.strip() for part in parts[1:] if not re.match(r"\s*[\w \-]+=", part)]
    if name in DASHES:
        return DASHES[name]
    if name in ("convert", "cvt") and len(plain) >= 2:
        return measure(plain)
    if name in ("frac", "fraction", "sfrac") and len(plain) == 2:
        return "/".join(plain)
    if name in ("birth date", "death date", "start date", "birth date and age") and len(plain) >= 3:
        year, month, day = plain[:3]
        return f"{day} {MONTHS[int(month) - 1]} {year}" if month.isdigit() and 0 < int(month) < 13 else year
    if name.startswith("lang-") and plain:
        return plain[0]
    if name in ("lang", "transl") and len(plain) < 2:
        return ""
    kept = KEPT_ARGUMENT.get(name)
    if kept is None or not plain or kept >= len(plain):
        return ""
    return PREFIX.get(name, "") + (plain[kept] if name != "chem" else "".join(plain))


def _hide_bars(match: re.Match[str]) -> str:
    return match.group().replace("|", "\x01")


def measure(plain: list[str]) -> str:
    """{{convert|5|to|6|km}} as "5 to 6 km"."""
    words = [plain[0]]
    rest = plain[1:]
    while len(rest) >= 2 and rest[0] in ("to", "-", "–", "and", "by", "x", "or", "to(-)", "and(-)"):
        words += [rest[0].removesuffix("(-)"), rest[1]]
        rest = rest[2:]
    return " ".join([*words, *(UNITS.get(unit, unit) for unit in rest[:1])])


def balanced(text: str, opening: str, closing: str, replace) -> str:
    """Replace balanced brackets, inner ones first; an unbalanced one is dropped."""
    tokens = re.split(f"({re.escape(opening)}|{re.escape(closing)})", text)
    stack: list[list[str]] = [[]]
    for token in tokens:
        if token == opening:
            stack.append([])
        elif token == closing:
            if len(stack) > 1:
                inside = "".join(stack.pop())
                stack[-1].append(replace(inside))
        else:
            stack[-1].append(token)
    while len(stack) > 1:
        rest = stack.pop()
        stack[-1] += rest
    return "".join(stack[0])


def link(inside: str) -> str:
    """The words of a link; none for files, categories and other languages."""
    target, bar, words = inside.partition("|")
    target = target.strip()
    if re.match(r"(?i)(?:file|image|category|media|wikt|wikipedia|special|help|portal)\s*:", target.lstrip(":")):
        return words.rpartition("|")[2] if target.startswith(":") or target.lower().startswith("wikt") else ""
    if re.match(r"[a-z]{2,3}(?:-[a-z]+)*:\S", target):
        return ""
    if bar:
        return words.rpartition("|")[2] if words else re.sub(r"\s*\([^()]*\)$|,.*$", "", target)
    return target.lstrip(":").replace("#", " ").replace("_", " ")


def tidy(line: str) -> str:
    """One paragraph, with the holes closed that dropped templates leave."""
    line = re.sub(r"[\s\u00a0\u200b]+", " ", line)
    for _ in range(3):
        line = re.sub(r"\(\s*(?:[,;:/–-]\s*)+", "(", line)
        line = re.sub(r"(?:\s*[,;:/])+\s*\)", ")", line)
        line = re.sub(r"\s*\(\s*(?:or|and|also|pronounced|IPA:?|listen)?\s*\)|\s*\[\s*\]", "", line)
        line = re.sub(r"([,;])(?:\s*[,;])+", r"\1", line)
    line = re.sub(r"\(\s+", "(", line)
    line = re.sub(r"\s+([,.;:!?)])", r"\1", line)
    return re.sub(r" {2,}", " ", line).strip()


def is_prose(line: str) -> bool:
    """Whether a line is a paragraph: no markup, no list, and it ends as sentences do."""
    if len(line) < 60 or FORMULA in line or line[0] in "=*#;:|!{}<&" or line[0].islower():
        return False  # in lower case it goes on behind a formula or a list
    if not re.search(r"[.!?][\"'”’)]*$", line) or re.search(r"\{\||\|\}|\[\[|\]\]|\w\s*=\s*\w.*\|", line):
        return False
    letters = sum(char.isalpha() or char.isspace() for char in line)
    return letters >= 0.8 * len(line)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=pathlib.Path, metavar="OUT.jsonl")
    parser.add_argument(
        "--input", type=pathlib.Path, help="another dump, *.xml.bz2 (default: the one in gensim's wheel)"
    )
    options = parser.parse_args(argv)
    path = options.input or find_sample()
    if path is None or not path.is_file():
        print(f"error: {path or 'gensim'} is not there; pip install 'ctxjax[demo]' has the sample", file=sys.stderr)
        return 2
    options.output.parent.mkdir(parents=True, exist_ok=True)
    part = options.output.with_name(f".{options.output.name}.part")
    count = words = 0
    with open(part, "w", encoding="utf-8") as file:
        for title, text in articles(path):
            paragraphs = prose(text)
            if paragraphs:
                file.write(json.dumps({"title": title, "text": "\n".join(paragraphs)}, ensure_ascii=False) + "\n")
                count += 1
                words += sum(len(paragraph.split()) for paragraph in paragraphs)
    os.replace(part, options.output)
    print(f"{options.output}: {count} articles, {words:,} words")
    return 0


def find_sample() -> pathlib.Path | None:
    """The dump inside the installed gensim, found without importing it."""
    import importlib.util

    spec = importlib.util.find_spec("gensim")
    return pathlib.Path(spec.origin).parent / SAMPLE if spec and spec.origin else None


if __name__ == "__main__":
    sys.exit(main())
