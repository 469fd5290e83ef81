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
    """A program that notes its words, each with a NUL behind it, and then does something."""
    folder.mkdir(exist_ok=True)
    program = folder / name
    noted = folder / f"{name}.calls"
    program.write_text(f"#!/usr/bin/env bash\n{{ printf '%s\\0' \"$@\"; printf '\\1'; }} >>'{noted}'\n{then}\n")
    program.chmod(0o755)


def recorded(folder: pathlib.Path, name: str) -> list[list[str]]:
    """The words of every call of a stub."""
    noted = folder / f"{name}.calls"
    calls = noted.read_text().split("\1")[:-1] if noted.exists() else []
    return [call.split("\0")[:-1] for call in calls]
