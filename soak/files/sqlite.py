"""Where in an SQLite file the rows are, so that every bit of them can be flipped.

From the file format's description (sqlite.org/fileformat2.html): b-tree pages, cells, overflow pages, varints.
"""

from __future__ import annotations

TABLE_LEAF, INDEX_LEAF = 13, 10
PAGE_SIZE_AT, LINK = 16, 4  # where the header says the size of a page; bytes that lead to the next overflow page


def row_bytes(data: bytes) -> tuple[range, ...]:
    """Return the bytes of every row: its header and its values; those of the schema, on the first page, left out."""
    size = int.from_bytes(data[PAGE_SIZE_AT : PAGE_SIZE_AT + 2], "big")
    leaves = [start for start in range(size, len(data), size) if data[start] in {TABLE_LEAF, INDEX_LEAF}]
    return tuple(
        part for start in leaves for number in range(_count(data, start)) for part in _row(data, start, number)
    )


def _count(data: bytes, page: int) -> int:
    return int.from_bytes(data[page + 3 : page + 5], "big")


def _row(data: bytes, page: int, number: int) -> list[range]:
    """Return the bytes of one cell's row: on its page, and on the overflow pages that it leads to."""
    size = int.from_bytes(data[PAGE_SIZE_AT : PAGE_SIZE_AT + 2], "big")
    pointer = page + 8 + 2 * number
    length, place = _varint(data, page + int.from_bytes(data[pointer : pointer + 2], "big"))
    if data[page] == TABLE_LEAF:
        _, place = _varint(data, place)
    local = _local(length, size, is_table=data[page] == TABLE_LEAF)
    parts, left = [range(place, place + local)], length - local
    place += local
    while left:
        start = size * (int.from_bytes(data[place : place + LINK], "big") - 1)
        held = min(left, size - LINK)
        parts.append(range(start + LINK, start + LINK + held))
        left, place = left - held, start
    return parts


def _local(length: int, size: int, *, is_table: bool) -> int:
    """Return how many bytes of a row are on its own page."""
    most = size - 35 if is_table else (size - 12) * 64 // 255 - 23
    if length <= most:
        return length
    least = (size - 12) * 32 // 255 - 23
    wanted = least + (length - least) % (size - LINK)
    return wanted if wanted <= most else least


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Return a number of 7 bits a byte, and where the next thing begins."""
    value = 0
    for _ in range(9):
        byte, place = data[place], place + 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            break
    return value, place
