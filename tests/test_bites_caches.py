"""Encoder states in either layout: shapes, names and types, joined and split, kept as long as they may be used."""

from types import SimpleNamespace

import numpy as np
import pytest

from nemoport.caches import NemoCaches, NoCaches, PromptedState, rows_of, whole_batch
from nemoport.caches_kv import KvCaches
from nemoport.caches_own import OwnCaches
from nemoport.errors import ArtifactError
from nemoport.spec import StreamingSpec

SPEC = StreamingSpec(2, 4, 2, 3, (0, 1), 2, 8, 9)
NEMO = {"cache_last_channel": (5, 2, 3, 4), "cache_last_time": (5, 2, 4, 2), "cache_last_channel_len": (5,)}
KV = {
    "cache_key_0": (3, 5, 2, 2), "cache_value_0": (3, 5, 2, 2), "cache_conv_0": (2, 5, 4),
    "cache_key_1": (3, 5, 2, 2), "cache_value_1": (3, 5, 2, 2), "cache_conv_1": (2, 5, 4), "cache_len": (5,),
}  # fmt: skip
OUTPUTS = {
    NemoCaches: ("cache_last_channel_next", "cache_last_time_next", "cache_last_channel_next_len"),
    KvCaches: ("key_new_0", "value_new_0", "conv_new_0", "key_new_1", "value_new_1", "conv_new_1"),
}


@pytest.mark.parametrize(("kind", "shapes"), [(NemoCaches, NEMO), (KvCaches, KV)])
def test_a_new_state_is_zeros_of_the_graphs_inputs(kind, shapes):
    assert list(kind.shapes(SPEC, 5).items()) == list(shapes.items()) and kind.outputs(SPEC) == OUTPUTS[kind]
    fed = kind.initial(SPEC, 5).feeds()
    assert {name: array.shape for name, array in fed.items()} == shapes and not any(array.any() for array in fed.values())
    assert {name: array.dtype for name, array in fed.items()} == {
        name: np.int64 if name.endswith("len") else np.float32 for name in shapes
    }
    assert kind.initial(SPEC, 5).length.tolist() == [0] * 5


@pytest.mark.parametrize("kind", [NemoCaches, KvCaches])
def test_a_state_of_feeds_has_these_feeds(kind):
    rng = np.random.default_rng(0)
    feeds = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in kind.shapes(SPEC, 2).items()}
    feeds[next(name for name in feeds if name.endswith("len"))] = np.array([1, 3])
    made = kind.of_feeds(feeds)
    assert made.feeds().keys() == feeds.keys() and made.length.tolist() == [1, 3]
    assert all(np.array_equal(array, feeds[name]) for name, array in made.feeds().items())


def test_an_offline_encoder_keeps_a_length_alone():
    made = NoCaches.initial(None, 3)
    assert (made.length.tolist(), made.length.dtype, made.feeds(), made.advance([1])) == ([0, 0, 0], np.int64, {}, made)
    assert NoCaches.shapes(None, 3) == {} and NoCaches.outputs(None) == ()
    rows = NoCaches(np.array([1, 2, 3])).rows()
    assert [row.length.tolist() for row in rows] == [[1], [2], [3]]
    assert NoCaches.stack([rows[2], rows[0]]).length.tolist() == [3, 1]


def test_a_prompt_travels_with_the_caches():
    state = PromptedState(NoCaches(np.array([4, 5])), np.array([7, 8]))
    assert state.length.tolist() == [4, 5] and state.feeds()["prompt_index"].tolist() == [7, 8]
    assert state.advance([]) == PromptedState(state.caches, state.prompt_index)
    first, second = state.rows()
    assert (first.length.tolist(), second.prompt_index.tolist()) == ([4], [8])
    joined = PromptedState.stack([second, first], NoCaches)
    assert (joined.length.tolist(), joined.prompt_index.tolist()) == ([5, 4], [8, 7])


def test_one_stream_is_not_copied_and_neither_is_a_batch_that_stays_whole():
    one = NemoCaches.initial(SPEC, 1)
    assert NemoCaches.stack([one]) is one
    batch = KvCaches.initial(SPEC, 3)
    rows = batch.rows()
    assert KvCaches.stack(rows) is batch and whole_batch(rows) is batch
    for others in (rows[:2], rows[::-1], [*rows[:2], KvCaches.initial(SPEC, 3).rows()[2]]):
        assert whole_batch(others) is None and KvCaches.stack(others) is not batch
    assert [row.length.tolist() for row in rows_of(SimpleNamespace(length=np.array([1, 2])))] == [[1], [2]]


def frames(count, value):
    """What a graph adds: `count` frames of one value, for key, value and conv of each layer."""
    return [
        np.full((count, *shape[1:]), value, np.float32) for name, shape in KvCaches.shapes(SPEC, 1).items() if name != "cache_len"
    ]


def held(state):
    return state.windows[0].view()[0, :, 0, 0, 0].tolist()


def test_a_window_slides_over_its_buffer_and_is_moved_at_its_end():
    """The buffer holds the context twice: a state may be used again until its frames are moved."""
    states = [KvCaches.initial(SPEC, 1)]
    for value in (1, 2, 3):
        states.append(states[-1].advance(frames(1, value)))
    assert [held(state) for state in states] == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3]]
    assert [state.length.tolist() for state in states] == [[0], [1], [2], [3]]
    after = states[-1].advance(frames(1, 4))  # moved
    assert held(after) == [2, 3, 4] and after.length.tolist() == [3]
    for state in states:
        with pytest.raises(ArtifactError, match="gone on without it"):
            held(state)
    assert held(after.advance(frames(2, 5))) == [4, 5, 5] and held(after) == [2, 3, 4]


def test_more_frames_than_a_context_leave_its_last_ones():
    state = KvCaches.initial(SPEC, 1)
    made = [np.arange(1, 6, dtype=np.float32).reshape(-1, *[1] * (f.ndim - 1)) * np.ones_like(f) for f in frames(5, 1)]
    after = state.advance(made)
    assert held(after) == [3, 4, 5] and after.length.tolist() == [3]
    assert after.windows[2].view()[1, :, 0, 0].tolist() == [4, 5]


def test_a_state_that_is_continued_twice_keeps_both_ways():
    start = KvCaches.initial(SPEC, 1).advance(frames(1, 1))
    one, other = start.advance(frames(1, 2)), start.advance(frames(1, 3))
    assert (held(one), held(other), held(start)) == ([0, 1, 2], [0, 1, 3], [0, 0, 1])
    assert held(one.advance(frames(1, 4))) == [1, 2, 4] and held(other.advance(frames(1, 5))) == [1, 3, 5]


@pytest.mark.parametrize("kind", [NemoCaches, KvCaches])
def test_streams_that_keep_caches_of_their_own_are_fed_the_same(kind):
    """Batches of changing members and of chunks shorter and longer than the caches: the arrays are those of streams that share a
    batch, bit for bit; and each is its own stream's."""
    rng, own = np.random.default_rng(0), OwnCaches(kind, SPEC)
    assert own.outputs(SPEC) == OUTPUTS[kind]
    theirs = [kind.initial(SPEC, 1).rows()[0] for _ in range(4)]
    ours = [own.initial(SPEC, 1).rows()[0] for _ in range(4)]
    for frames in (1, 2, 1, 3, 5, 2, 1, 1):
        members = list(rng.permutation(4)[: rng.integers(1, 5)])
        state, mine = kind.stack([theirs[i] for i in members]), own.stack([ours[i] for i in members])
        fed, expected = mine.feeds(), state.feeds()
        assert fed.keys() == expected.keys() and mine.length.tolist() == state.length.tolist()
        assert all(np.array_equal(fed[name], array) and fed[name].dtype == array.dtype for name, array in expected.items())
        outputs = _outputs_of(kind, rng, len(members), frames)
        for i, row, other in zip(members, state.advance(outputs).rows(), mine.advance(outputs).rows(), strict=True):
            theirs[i], ours[i] = row, other
    assert [stream.length.tolist() for stream in ours] == [stream.length.tolist() for stream in theirs]


def _outputs_of(kind, rng, streams, frames):
    if kind is NemoCaches:
        *shapes, _ = kind.shapes(SPEC, streams).values()
        return [rng.standard_normal(shape).astype(np.float32) for shape in shapes] + [rng.integers(0, 4, streams)]
    shapes = list(kind.shapes(SPEC, streams).values())[:-1]
    return [rng.standard_normal((frames, *shape[1:])).astype(np.float32) for shape in shapes]
