"""Windows over a long recording, and how what they say becomes one."""

import math

import pytest
from passes import windows

from nemoport.long_audio import Timed, merge


def timed(tokens, start=0.0, step=1.0):
    return Timed(tuple(tokens), tuple(start + step * i for i in range(len(tokens))), (0.08,) * len(tokens), (1.0,) * len(tokens))


@pytest.mark.parametrize(("total", "count"), [(10, 1), (30, 1), (30.1, 2), (55, 2), (56, 3), (1000, 40)])
def test_windows_cover_everything_and_overlap(total, count):
    found = windows(total, 30, 5)
    assert len(found) == count and found[0][0] == 0 and found[-1][1] == total
    assert all(end - start == pytest.approx(min(total, 30)) for start, end in found)
    assert all(later[0] <= earlier[1] - 5 + 1e-9 for earlier, later in zip(found, found[1:], strict=False))


@pytest.mark.parametrize("shift", [0.0, 0.3, -0.3])
@pytest.mark.parametrize("edge", [0, 2])
def test_a_recording_comes_out_once(shift, edge):
    """Tokens 0 to 99, one a second, transcribed in windows that begin and end with words cut to other ones."""
    parts = []
    for start, end in windows(100, 30, 12):
        tokens = list(range(math.ceil(start), int(end)))
        tokens = [900 + i for i in range(edge if start else 0)] + tokens[edge if start else 0 :]
        tokens = tokens[: len(tokens) - edge] + [800 + i for i in range(edge)] if end < 100 else tokens
        parts.append((start, timed(tokens, math.ceil(start) - start + (shift if start else 0))))
    merged = merge(parts)
    assert merged.tokens == tuple(range(100))
    assert list(merged.seconds) == sorted(merged.seconds)


@pytest.mark.parametrize("missing", [1, 2, 4])
def test_repeated_words_are_told_apart_by_their_times(missing):
    """The same word all along, of which each later window misses the first ones: by order alone, words would be lost."""
    parts = []
    for start, end in windows(70, 30, 10):
        cut = missing if start else 0
        parts.append((start, timed([7] * round(end - start - cut), cut)))
    merged = merge(parts)
    assert merged.tokens == (7,) * 70 and merged.seconds == tuple(range(70))


def test_nothing_in_common_is_cut_in_the_middle():
    merged = merge([(0.0, timed([1] * 30)), (20.0, timed([2] * 30))])
    assert merged.tokens == (1,) * 25 + (2,) * 25
    silent = Timed((), (), (), ())
    assert merge([(0.0, silent), (20.0, timed([2, 3]))]).tokens == (2, 3)
    assert merge([(0.0, timed([2, 3])), (20.0, silent)]).tokens == (2, 3)
    assert merge([(5.0, timed([1, 2]))]) == timed([1, 2], 5.0)


def at(*pairs):
    """Tokens with their times."""
    tokens, seconds = zip(*pairs, strict=True)
    return Timed(tokens, seconds, (0.08,) * len(tokens), (1.0,) * len(tokens))


def test_a_word_behind_others_is_told_by_its_own_time():
    """Both windows have 1, on either side of the middle of the overlap at 24 s; before it one of them has another word."""
    merged = merge([(0.0, at((5, 20.0), (1, 24.1), (9, 28.0))), (20.0, at((1, 3.9), (8, 7.9)))])
    assert merged.tokens == (5, 1, 8)


def test_the_longest_distance_of_one_word_is_four_tenths_of_a_second():
    near = merge([(0.0, at((1, 0.4), (9, 5.0))), (0.0, at((1, 0.0), (8, 4.9)))])
    far = merge([(0.0, at((1, 0.41), (9, 5.0))), (0.0, at((1, 0.0), (8, 4.9)))])
    assert (near.tokens, near.seconds, far.tokens, far.seconds) == ((1, 8), (0.0, 4.9), (1, 8), (0.41, 4.9))
