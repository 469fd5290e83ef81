"""Reading a compiled module: what one step of one device sends to others, and reads from and writes to its memory.

The compiler's own `cost_analysis()` counts the body of a loop once; here a loop counts as often as it runs.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


class Traffic(NamedTuple):
    """Collectives of one kind in one step."""

    count: int
    nbytes: int


_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][a-z0-9\-]*)\((.*)$")
_SHAPE = re.compile(r"\b(pred|[a-z]+[0-9]+(?:e[0-9]m[0-9]\w*)?)\[([0-9,]*)\](\{[^}]*\})?")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


def _size(shapes: str, memory: bool = False) -> int:
    """Bytes of the arrays of a shape; with `memory` without those that the layout keeps on the core (`S(1)`)."""
    total = 0
    for kind, axes, layout in _SHAPE.findall(shapes):
        if memory and "S(" in layout:
            continue
        bits = 8 if kind == "pred" else int(re.sub(r"^[a-z]+", "", kind).split("e")[0])
        total += math.prod(int(axis) for axis in axes.split(",") if axis) * max(bits // 8, 1)
    return total


class _Instruction(NamedTuple):
    name: str
    shape: str
    operation: str
    rest: str

    @property
    def operands(self) -> list[str]:
        """Names of what it is given."""
        depth, end = 1, len(self.rest)
        for place, letter in enumerate(self.rest):
            depth += (letter in "({") - (letter in ")}")
            if not depth:
                end = place
                break
        return [name for name in re.findall(r"%([\w.\-]+)", self.rest[:end])]


def _computations(text: str) -> tuple[dict[str, list[_Instruction]], str]:
    """The instructions of every computation by its name, and the name of the entry."""
    found: dict[str, list[_Instruction]] = {}
    current, entry = "", ""
    for line in text.splitlines():
        if opened := _COMPUTATION.match(line):
            current = opened[1]
            found[current] = []
            entry = current if line.startswith("ENTRY") else entry
        elif current and (instruction := _INSTRUCTION.match(line)):
            found[current].append(_Instruction(*instruction.groups()))
    return found, entry


def _trips(loop: str, condition: list[_Instruction]) -> int:
    """How often a loop runs: as the compiler notes it, or the constant that its counter is compared with."""
    if known := re.search(r'known_trip_count[^0-9]*?"?n"?:"?(\d+)', loop):
        return int(known[1])
    constants = [re.match(r"(\d+)\)", line.rest) for line in condition if line.operation == "constant"]
    numbers = [int(constant[1]) for constant in constants if constant]
    return max(numbers) if numbers else 1


def collectives(text: str) -> dict[str, Traffic]:
    """Collectives of a compiled module by kind.

    A collective that the compiler splits into a start, a part that runs under a fusion and an end has one channel
    number, and counts once.
    """
    computations, entry = _computations(text)
    channels: dict[str, tuple[str, int, int]] = {}

    def visit(name: str, times: int) -> None:
        shapes = {line.name: line.shape for line in computations[name]}
        for index, line in enumerate(computations[name]):
            kind = line.operation.removesuffix("-start")
            if kind in COLLECTIVES:
                operands = line.rest.split("), ")[0]
                given = sum(_size(shapes.get(operand, "")) for operand in re.findall(r"%?([\w.\-]+)", operands))
                made = _size(line.shape) - (given if line.operation.endswith("-start") else 0)
                if kind == "all-reduce" and name.startswith("all-reduce-scatter"):
                    kind = "reduce-scatter"
                channel = re.search(r"channel_id=(\d+)", line.rest)
                key = channel[1] if channel else f"{name} {index}"
                known = channels.get(key, (kind, 0, 0))
                channels[key] = (kind, max(known[1], times), max(known[2], given, made))
            inside = times
            if line.operation == "while" and (condition := re.search(r"condition=%?([\w.\-]+)", line.rest)):
                inside = times * _trips(line.rest, computations.get(condition[1], []))
            called = _CALLED.findall(line.rest)
            for branches in _BRANCHES.findall(line.rest):
                called += re.findall(r"[\w.\-]+", branches)
            for other in called:
                if other in computations and other != name:
                    visit(other, inside)

    visit(entry, 1)
    totals: dict[str, Traffic] = {}
    for kind, times, size in channels.values():
        count, nbytes = totals.get(kind, Traffic(0, 0))
        totals[kind] = Traffic(count + times, nbytes + times * size)
    return totals


def sent(found: dict[str, Traffic]) -> int:
    """Bytes that pass a chip's links: an all-reduce scatters and gathers, and counts twice; of many chips, as if the
    chip had no part of the array itself."""
    return sum(traffic.nbytes * (2 if kind == "all-reduce" else 1) for kind, traffic in found.items())


# --- bytes ---

_NOTHING = {"parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "partition-id", "replica-id"}
_PARTS = {"dynamic-slice", "slice", "gather"}  # read as much of their first operand as they give


def bytes_accessed(text: str) -> int:
    """Bytes of a device's memory that a compiled module reads and writes.

    What an instruction is given and what it gives, a fusion being one instruction; of an array that is only sliced the
    slices, of one that is updated in place the update. Arrays that the layout holds on the core do not count, nor does
    what a fusion keeps to itself. An array that several instructions read counts for each.
    """
    computations, entry = _computations(text)

    def visit(name: str, times: int) -> int:
        lines = {line.name: line for line in computations[name]}
        total = 0
        for line in lines.values():
            if line.operation == "while" and (
                parts := re.search(r"condition=%?([\w.\-]+), body=%?([\w.\-]+)", line.rest)
            ):
                turns = times * _trips(line.rest, computations.get(parts[1], []))
                total += sum(visit(part, turns) for part in parts.groups() if part in computations)
            elif line.operation in ("conditional", "call"):
                called = _CALLED.findall(line.rest)
                for branches in _BRANCHES.findall(line.rest):
                    called += re.findall(r"[\w.\-]+", branches)
                total += sum(visit(other, times) for other in called if other in computations)
            else:
                total += times * _touched(line, lines, computations)
        return total

    return visit(entry, 1)


def _touched(line: _Instruction, lines: dict[str, _Instruction], computations: dict[str, list[_Instruction]]) -> int:
    """Bytes that one instruction reads and writes."""
    if line.operation in _NOTHING or line.operation.endswith("-done") or "AllocateBuffer" in line.rest:
        return 0
    given = [lines[name].shape if name in lines else "" for name in line.operands]
    if line.operation == "fusion" and (called := re.search(r"calls=%?([\w.\-]+)", line.rest)):
        inside = computations[called[1]]
        read = [min(_size(shape, True), _used(place, inside, computations)) for place, shape in enumerate(given)]
        return sum(read) + min(_size(line.shape, True), _made(inside))
    if line.operation in ("copy-start", "slice-start", "dynamic-slice-start"):
        moved = [shape[0] for shape in re.finditer(_SHAPE, line.shape)]
        smallest = min(_size(shape) for shape in moved[:2])
        return smallest * sum("S(" not in shape for shape in moved[:2])
    made = _size(line.shape, True)
    if line.operation.endswith("-start"):
        made = max(made - sum(_size(shape, True) for shape in given), 0)
    if line.operation in _PARTS:
        return made + (_size(line.shape) if given and _size(given[0], True) else 0)
    if line.operation == "dynamic-update-slice":
        return _size(given[1], True) + (_size(given[1]) if made else 0)
    if line.operation == "scatter" and len(given) >= 3:  # reads, adds to and writes the rows of its updates
        return _size(given[1], True) + 3 * _size(given[-1], True)
    return made + sum(_size(shape, True) for shape in given)


def _used(place: int, inside: list[_Instruction], computations: dict[str, list[_Instruction]]) -> int:
    """Bytes of its operand of that number that a fused computation reads, if only parts of it are."""
    everything = 2**62
    held = {line.name for line in inside if line.operation == "parameter" and line.rest.startswith(f"{place})")}
    total = 0
    for line in inside:
        at = [index for index, name in enumerate(line.operands) if name in held]
        if not at:
            continue
        if line.operation == "bitcast":
            held.add(line.name)
        elif line.operation in _PARTS and at == [0]:
            total += _size(line.shape)
        elif line.operation == "fusion" and (called := re.search(r"calls=%?([\w.\-]+)", line.rest)):
            total += sum(_used(index, computations[called[1]], computations) for index in at)
        elif not (line.operation == "dynamic-update-slice" and at == [0]):
            return everything
    return min(total, everything)


def _made(inside: list[_Instruction]) -> int:
    """Bytes that a fused computation writes, if it ends in updates of what it was given."""
    lines = {line.name: line for line in inside}

    def of(name: str) -> int:
        line = lines[name]
        if line.operation == "bitcast":
            return of(line.operands[0])
        if line.operation == "tuple":
            return sum(of(operand) for operand in line.operands)
        if line.operation == "dynamic-update-slice":
            return _size(lines[line.operands[1]].shape)
        return _size(line.shape, True)

    return of(inside[-1].name)  # the root comes last
