"""Windows of a document: as much of it as a model can read, what is told in the middle."""

from __future__ import annotations

from collections.abc import Sequence


def around(start: int, stop: int, total: int, room: int) -> tuple[int, int]:
    """First and last (one behind) of `room` pieces round start to stop of a document of `total`.

    Both sides get half of what is left over; at an edge of the document the other side gets the rest. What is longer
    than `room` stays as it is.
    """
    spare = max(0, room - (stop - start))
    left = min(start, max(spare // 2, spare - (total - stop)))
    return start - left, min(total, stop + spare - left)


def parts(lengths: Sequence[int], most: int) -> list[tuple[int, int]]:
    """Cut words of these lengths into runs of at most `most` pieces, each as long as it can be: (first, one behind).

    Raises:
      ValueError: a word of more pieces than `most`; its number is the argument.
    """
    found, first, held = [], 0, 0
    for place, length in enumerate(lengths):
        if length > most:
            raise ValueError(place)
        if held + length > most:
            found.append((first, place))
            first, held = place, 0
        held += length
    return [*found, (first, len(lengths))]
