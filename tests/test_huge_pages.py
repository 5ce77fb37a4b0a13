"""Weights in huge pages: which memory, which pages of it, and that what stands there stays."""

import mmap
import re
from pathlib import Path

import numpy as np
import pytest

from nemoport.runtimes.onnxruntime import huge_pages
from nemoport.runtimes.onnxruntime.huge_pages import added, filled, private_memory, use_huge_pages

MAPS = """\
1000-3000 r-xp 00000000 fe:00 77 /usr/bin/python3
5000-6000 rw-p 00000000 00:00 0 [heap]
7000-a000 rw-p 00000000 fe:00 78 /weights
b000-ff000 rw-p 00000000 00:00 0
"""


def test_memory_that_no_file_is_behind(tmp_path):
    (tmp_path / "maps").write_text(MAPS)
    assert private_memory(tmp_path / "maps") == [(0x5000, 0x6000), (0xB000, 0xFF000)]
    assert private_memory(tmp_path / "none") == []


def test_only_what_came_since():
    after = [(0, 10), (20, 30), (40, 50), (60, 70)]
    assert added([], after) == after
    assert added([(0, 10), (22, 24), (26, 28), (35, 45), (55, 80)], after) == [(20, 22), (24, 26), (28, 30), (45, 50)]


def test_pages_that_hold_little_are_left():
    resident = np.full((6, 4), 254, np.uint8)  # only the lowest bit counts
    for page, count in enumerate((4, 3, 2, 4, 0, 3)):
        resident[page, :count] = 255
    assert filled(resident) == [(0, 2), (3, 4), (5, 6)]
    assert filled(resident[4:5]) == []


def huge_bytes() -> int:
    """Of this process now."""
    return 1024 * int(re.search(r"AnonHugePages: +(\d+)", Path("/proc/self/smaps_rollup").read_text())[1])


@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size").exists(), reason="no huge pages here")
def test_values_stay_and_what_was_there_before_is_left():
    if mmap.PAGESIZE != huge_pages.SMALL_BYTES:
        pytest.skip("pages of another size than 4 kB")
    size = 8 * huge_pages.HUGE_BYTES
    old = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    old.write(b"o" * size)
    values = np.random.default_rng(0).bytes(size)
    before, huge = private_memory(), huge_bytes()
    new = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    new.write(values)
    use_huge_pages(before)
    assert new[:] == values
    gained = huge_bytes() - huge
    if not gained:
        pytest.skip("the system gives no huge pages: Linux before 6.1, or none are free")
    assert size - 2 * huge_pages.HUGE_BYTES < gained <= size


def test_a_session_moves_what_its_graphs_took(monkeypatch):
    from nemoport.runtimes.onnxruntime import session

    steps = []
    monkeypatch.setattr(session, "private_memory", lambda: steps.append("before"))
    monkeypatch.setattr(session, "open_graph", lambda *_: steps.append("graph"))
    monkeypatch.setattr(session, "use_huge_pages", lambda _: steps.append("moved"))
    session.OnnxSession(None, None, None)
    assert steps == ["before", "graph", "graph", "moved"]
