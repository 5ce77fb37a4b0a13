"""A stream without an end: nothing grows but its tokens, and its times stay exact. bench/day.py runs a whole day."""

import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from nemoport.beam import Beam, BeamSearch
from nemoport.recognizer import Recognizer
from nemoport.stream import Stream

sys.path.append(str(Path(__file__).resolve().parent.parent / "bench"))
from day import problems  # noqa: E402
from endless import Hour, Live, Scenes, one_stream  # noqa: E402

PERIOD_S = 90.0  # in the place of an hour; the probe takes most of it
CENTURY_CHUNKS = 100 * 365 * 86400 * 1000 // 560


@pytest.fixture(scope="module")
def recognizer(build):
    return Recognizer.open(build / "fp32", threads=1)


@pytest.fixture(scope="module")
def scenes():
    return Scenes(16000, seed=1)


def test_minutes_of_mixed_audio_leave_nothing_behind_but_tokens(recognizer):
    held, traced, found = [], [], []
    tracemalloc.start()
    for hour in one_stream(recognizer, 0, 3, PERIOD_S):
        held.append(hour.held)
        found += [problem for problem in problems([hour]) if "costs" not in problem]
        del hour
        traced.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert found == []
    assert held[2].token_bytes > held[1].token_bytes > 0
    assert abs(held[2].other_bytes - held[1].other_bytes) < 500  # one chunk's mel has 33,000
    assert traced[2] - traced[1] - (held[2].token_bytes - held[1].token_bytes) < 33_000  # after 160 chunks more
    assert held[2].counter == (3 * round(PERIOD_S * 16000 / 8960) * 8960, "_samples")


def test_what_grows_is_noticed(recognizer, scenes, monkeypatch):
    live = Live(recognizer)
    mel = live.stream._chunker._mel
    feed, mel.kept = mel.feed, []
    monkeypatch.setattr(mel, "feed", lambda samples: mel.kept.append(samples.copy()) or feed(samples))
    hours = [live.run_hour(scenes.pieces(9 * live.chunk_samples), scenes.probe[: live.chunk_samples]) for _ in range(3)]
    assert [problem for problem in problems(hours) if "bytes beside its tokens" in problem]


def test_a_drift_a_stall_and_resident_memory_are_noticed():
    fresh = ([5, 6, 7, 8], [10, 12, 15, 19])
    costs = [(1.0, "")] * 99 + [(11.0, "at 5.0 s")]
    right, late = (Hour.of(costs, 4, probe=(fresh[0], [f + shift for f in fresh[1]]), fresh=fresh) for shift in (0, 1))
    assert right.stalls == ["11.0 ms at 5.0 s"]
    assert list(problems([right, right])) == []
    assert list(problems([right, late])) == ["in hour 2 8 tokens of the probe are not where a fresh stream has them"]
    slow = Hour.of(costs, 4, probe=fresh, fresh=fresh, older=1.3)
    assert list(problems([right, slow])) == ["a chunk costs 1.30 of what it costs in a fresh stream"]
    large = Hour(right.costs_ms, [], 4, right.resident_bytes + (20 << 20), fresh, fresh)
    assert len([problem for problem in problems([right, right, large]) if "resident memory grew by 2" in problem]) == 1


def test_a_stream_of_a_hundred_years(recognizer, scenes):
    """Its counters are past all that 32 bits or a float32 can count; tokens and times are those of a fresh one."""
    old, fresh = Live(recognizer), Live(recognizer)
    clip = np.concatenate([np.zeros(8960, np.float32), *scenes.clips["plain"][:3], np.zeros(16000, np.float32)])
    for live in (old, fresh):
        live.feed(clip[:8960])
    mel = old.stream._chunker._mel
    mel._samples += CENTURY_CHUNKS * 8960
    mel._frames += CENTURY_CHUNKS * 56
    old.stream.decoded.frame += CENTURY_CHUNKS * 7
    for live in (old, fresh):
        for at in range(8960, len(clip), 1600):
            live.feed(clip[at : at + 1600])
        live.stream.finish()
    assert old.stream.tokens == fresh.stream.tokens != []
    assert old.since(CENTURY_CHUNKS * 7) == fresh.since(0)
    shift = [a - b for a, b in zip(old.stream.token_seconds, fresh.stream.token_seconds, strict=True)]
    assert shift == pytest.approx([CENTURY_CHUNKS * 0.56] * len(shift), abs=1e-5)


def test_silence_leaves_only_the_last_words_behind(recognizer, scenes):
    """After 45 s of zeros the encoder gives what it gives a fresh stream; only the prediction network knows what was said."""
    old, fresh = Live(recognizer), Live(recognizer)
    for piece in scenes.pieces(100 * old.chunk_samples):
        old.feed(piece)
    for live in (old, fresh):
        live.feed(np.zeros(80 * live.chunk_samples, np.float32))
    state, wanted = old.stream.decoded, fresh.stream.decoded
    assert not np.array_equal(state.hidden, wanted.hidden)
    state.token, state.hidden, state.cell = wanted.token, wanted.hidden, wanted.cell
    starts = [live.next_frame() for live in (old, fresh)]
    for clip in scenes.clips["plain"][:4]:
        for live in (old, fresh):
            live.feed(clip)
    old_probe, fresh_probe = (live.since(start) for live, start in zip((old, fresh), starts, strict=True))
    assert old_probe == fresh_probe and len(fresh_probe[0]) > 40


def test_a_long_recording_is_fed_by_the_minute(recognizer, scenes, monkeypatch):
    """Its mel frames and windows would take three times its memory, all at once."""
    samples = np.concatenate([*scenes.pieces(130 * 16000)])
    sizes, push = [], Stream.push
    monkeypatch.setattr(Stream, "push", lambda self, packet: sizes.append(len(packet)) or push(self, packet))
    by_the_minute, at_once = (next(recognizer.transcribe([("a", samples)], packet_samples=n)) for n in (0, len(samples)))
    assert sizes == [60 * 16000, 60 * 16000, 10 * 16000, 130 * 16000]
    assert (by_the_minute.tokens, by_the_minute.token_seconds) == (at_once.tokens, at_once.token_seconds)


def test_a_beam_joins_its_tokens_only_for_new_ones(recognizer, scenes, monkeypatch):
    """The list of a day's tokens is long, and most packets complete no chunk."""
    stream = Recognizer(recognizer.session, recognizer._filterbank, recognizer._pieces, 6, search=BeamSearch(2)).stream()
    reads, tokens = [], Beam.tokens.fget
    monkeypatch.setattr(Beam, "tokens", property(lambda self: reads.append(1) or tokens(self)))
    clip = scenes.clips["plain"][0]
    returned = [stream.feed(clip[at : at + 160]) for at in range(0, len(clip), 160)]
    assert 0 < sum(map(bool, returned)) == len(reads) < 10
