"""Weights in pages of 2 MB in the place of 4 kB, on Linux.

A chunk reads every weight once, 600 MB at 0.6B in INT8: in small pages the processor's table of pages misses all the while.
onnxruntime allocates as malloc does, whose memory gets small pages where the system waits for advice
(/sys/kernel/mm/transparent_hugepage/enabled: madvise, the default of most distributions).
"""

from __future__ import annotations

import ctypes
import mmap
from contextlib import suppress
from pathlib import Path

import numpy as np

SMALL_BYTES, HUGE_BYTES = 2**12, 2**21  # of a page; other sizes, as some ARM systems have, are left alone
LEAST_FILLED = 0.75  # of a huge page: the rest of it is memory that would be taken for nothing
_HUGEPAGE, _COLLAPSE = 14, 25  # of <linux/mman.h>; the second since Linux 6.1
_MAPS = Path("/proc/self/maps")

Range = tuple[int, int]  # addresses, of which the second is the first that no longer belongs to it


def private_memory(maps: Path = _MAPS) -> list[Range]:
    """Lists the ranges of memory that this process can write to and that no file is behind, in order; none on other systems."""
    with suppress(OSError):
        rows = (line.split() for line in maps.read_text().splitlines())
        return [_range(row[0]) for row in rows if row[1] == "rw-p" and row[4] == "0"]
    return []


def _range(text: str) -> Range:
    start, end = text.split("-")
    return int(start, 16), int(end, 16)


def added(before: list[Range], after: list[Range]) -> list[Range]:
    """Returns the parts of the ranges `after` that are in none of `before`; both in order, each without overlaps."""
    parts = []
    for start, end in after:
        for known_start, known_end in before:
            if known_end > start and known_start < end:
                if known_start > start:
                    parts.append((start, known_start))
                start = known_end
        if start < end:
            parts.append((start, end))
    return parts


def filled(resident: np.ndarray) -> list[Range]:
    """Returns the runs of huge pages that are in memory but for a quarter at most: the first, and the one behind the last.

    resident: u8 [huge pages, small pages in each], whose lowest bit is 1 for a page in memory.
    """
    whole = np.concatenate([[0], (resident & 1).mean(1) >= LEAST_FILLED, [0]])
    edges = np.flatnonzero(np.diff(whole)).tolist()
    return list(zip(edges[0::2], edges[1::2], strict=True))


def use_huge_pages(before: list[Range]) -> None:
    """Moves what was allocated since `private_memory` gave `before` to huge pages, as far as the system has some.

    What malloc has handed back to the system is, but for gaps, not taken again. Takes up to a second of processor time a GB.
    """
    if mmap.PAGESIZE != SMALL_BYTES:
        return
    with suppress(OSError, AttributeError):  # no glibc
        libc = ctypes.CDLL("libc.so.6")
        libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
        for start, end in added(before, private_memory()):
            first, count = -(-start // HUGE_BYTES), end // HUGE_BYTES - -(-start // HUGE_BYTES)
            if count <= 0:
                continue
            resident = np.zeros((count, HUGE_BYTES // SMALL_BYTES), np.uint8)
            if libc.mincore(first * HUGE_BYTES, count * HUGE_BYTES, resident.ctypes.data):
                continue
            for low, high in filled(resident):
                for advice in (_HUGEPAGE, _COLLAPSE):
                    libc.madvise((first + low) * HUGE_BYTES, (high - low) * HUGE_BYTES, advice)
