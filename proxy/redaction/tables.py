"""Tables in plain text: what stands under a heading."""

from __future__ import annotations

from collections.abc import Iterator

WIDEST = 400
"""A line of headings has at most so many characters, and a heading a tenth of them."""


def column(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield where the cells are under a heading that has `text[start:end]` in it; none if that is in no heading.

    A heading stands in a line of cells without digits, at the top of lines that have as many cells.
    """
    begin = text.rfind("\n", max(0, start - WIDEST), start) + 1
    stop = text.find("\n", end, end + WIDEST)
    if stop < 0 or stop - begin > WIDEST or (begin == 0 and start > WIDEST):
        return
    heading = text[begin:stop]
    delimiter = max(",;\t|", key=heading.count)
    width = heading.count(delimiter)
    if not width or any(map(str.isdigit, heading)) or max(map(len, heading.split(delimiter))) > WIDEST // 10:
        return
    # A line within the table is no heading, though it may read like one.
    above = text.rfind("\n", max(0, begin - 1 - WIDEST), max(0, begin - 1)) + 1
    if begin and text.count(delimiter, above, begin) == width:
        return
    number = text.count(delimiter, begin, start)
    while stop >= 0:
        begin, stop = stop + 1, text.find("\n", stop + 1)
        cells = text[begin : stop if stop >= 0 else len(text)].split(delimiter)
        if len(cells) != width + 1:
            return
        at = begin + sum(map(len, cells[:number])) + number
        cell = cells[number]
        at += len(cell) - len(cell.lstrip(' "'))
        yield at, at + len(cell.strip(' "'))
