"""Programs of clusters that record how they were called, for the tests of launch/."""

import pathlib

ROOT = pathlib.Path(__file__).parents[2]
NASTY = [
    "two  words",
    'it\'s; "quoted"',
    "$HOME `id` $(id) $$",
    "",
    "*",
    "--config.best=highest dev/f1",
    "back\\slash\nline & | > ü",
]


def stub(folder: pathlib.Path, name: str, then: str = "") -> None:
    """A program that notes its words, each with a NUL behind it, and then does something.

    They are one write, so that programs that run at once do not note their words among one another's.
    """
    folder.mkdir(exist_ok=True)
    program = folder / name
    noted = folder / f"{name}.calls"
    program.write_text(f"#!/usr/bin/env bash\nprintf '%s\\0' \"$@\" $'\\1' >>'{noted}'\n{then}\n")
    program.chmod(0o755)


def recorded(folder: pathlib.Path, name: str) -> list[list[str]]:
    """The words of every call of a stub."""
    noted = folder / f"{name}.calls"
    calls: list[list[str]] = [[]]
    for word in noted.read_text().split("\0")[:-1] if noted.exists() else []:
        if word == "\1":
            calls.append([])
        else:
            calls[-1].append(word)
    return calls[:-1]
