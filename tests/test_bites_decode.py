"""Greedy decoding step by step, over scores that a table states: which token, on which frame, with which duration."""

from types import SimpleNamespace

import numpy as np
import pytest
from librosa.filters import mel

from nemoport.decode import GreedyState, greedy
from nemoport.frontend import mel_filterbank
from nemoport.hotwords import Hotwords
from nemoport.spec import DecodingSpec, FrontendSpec

BLANK, DURATIONS = 4, (0, 1, 2, 4)
TDT = DecodingSpec(4, pred_layers=1, pred_hidden=2, joint_hidden=2, max_symbols_per_frame=3, durations=DURATIONS)
RNNT = DecodingSpec(4, pred_layers=1, pred_hidden=2, joint_hidden=2, max_symbols_per_frame=3)


class Scripted:
    """A session whose frames hold their own number. script: (frame, tokens before) -> (token, duration); blank elsewhere."""

    def __init__(self, spec, script, boosted=(), resetting=frozenset()):
        self.spec = SimpleNamespace(decoding=spec, head="rnnt", resetting=resetting)
        self.script, self.boosted, self.asked = script, boosted, []

    def step(self, frames, tokens, states):
        assert tokens.dtype == np.int32 and frames.dtype == np.float32
        hidden, cell = states
        self.asked.append([int(token) for token in tokens])
        spec = self.spec.decoding
        scores = np.full((*frames.shape[:2], spec.n_scores), -9.0, np.float32)
        for row, at in np.ndindex(*frames.shape[:2]):
            frame = int(frames[row, at, 0])
            token, duration = self.script.get((frame, int(hidden[0, row, 0])), (BLANK, 1))
            scores[row, at, token] = 0.0
            scores[row, at, list(self.boosted)] += 8.0
            if spec.durations:
                scores[row, at, BLANK + 1 + DURATIONS.index(duration)] = 1.0
        return scores, (hidden + 1, cell)  # which are taken where a token is emitted


def decoded(spec, script, lengths=(6,), hotwords=None, boosted=(), resetting=frozenset()):
    session = Scripted(spec, script, boosted, resetting)
    states = [GreedyState.initial(spec, hotwords=hotwords) for _ in lengths]
    frames = np.broadcast_to(np.arange(max(lengths), dtype=np.float32)[None, :, None], (len(lengths), max(lengths), 1))
    greedy(session, frames, np.array(lengths), states)
    return states, session


def test_tokens_frames_and_durations_of_tdt():
    """A token of two frames, and one of none on the frame behind it, which the next call begins on."""
    ((state,), session) = decoded(TDT, {(0, 0): (2, 2), (2, 1): (1, 0), (2, 2): (3, 4)})
    assert (state.tokens, state.token_frames, state.token_durations) == ([2, 1, 3], [0, 2, 2], [2, 0, 4])
    assert state.frame == 6 and session.asked == [[BLANK], [2], [1]]
    assert all(type(value) is int for value in state.token_durations)


def test_a_blank_of_tdt_goes_on_by_its_duration():
    for duration, frames in ((4, [4]), (1, [1, 4]), (0, [1, 4])):  # at least one frame at a blank
        script = {(0, 0): (BLANK, duration), (1, 0): (1, 1), (4, 0): (2, 1), (4, 1): (2, 1)}
        ((state,), _) = decoded(TDT, script)
        assert state.token_frames == frames


def test_rows_have_durations_of_their_own():
    script = {(1, 0): (1, 2), (3, 1): (2, 1)}
    states, _ = decoded(TDT, script, lengths=(6, 2, 0))
    assert [state.tokens for state in states] == [[1, 2], [1], []]
    assert [state.token_durations for state in states] == [[2, 1], [2], []] and [s.frame for s in states] == [6, 2, 0]


def test_an_rnnt_token_has_no_duration_and_a_frame_at_most_so_many():
    script = {(1, before): (before % 4, 0) for before in range(9)}
    ((state,), _) = decoded(RNNT, script)
    assert (state.tokens, state.token_frames, state.token_durations) == ([0, 1, 2], [1, 1, 1], [0, 0, 0])


def test_a_stream_has_the_hotwords_that_it_begins_with():
    hotwords = Hotwords(["▁a", "▁b", "▁c", "▁d"], ["d"], 2.0)
    script = {(1, 0): (1, 0)}
    assert decoded(RNNT, script, boosted=[3])[0][0].tokens == [1]
    assert decoded(RNNT, script, hotwords=hotwords, boosted=[3])[0][0].tokens == [3]


@pytest.mark.parametrize("rate_hz", [1600, 1999, 2000, 2400, 16000])
def test_filters_below_and_above_the_knee_of_the_scale(rate_hz):
    spec = FrontendSpec(rate_hz, 20, 512, 400, 160, 0.97, 2.0**-24, "NA")
    expected = mel(sr=rate_hz, n_fft=512, n_mels=20, norm="slaney")
    assert np.allclose(mel_filterbank(spec), expected, rtol=1e-5, atol=1e-8)


def test_a_token_that_resets_ends_its_frame_and_what_follows_is_a_new_stream():
    """Blank is the next target, behind states of zeros; the tokens so far stay."""
    script = {(1, 0): (0, 0), (1, 1): (3, 0), (1, 2): (1, 0), (1, 0.5): (1, 0), (2, 0): (1, 0), (2, 1): (2, 0)}
    (state, other), session = decoded(RNNT, script, (6, 2), resetting=frozenset({3}))
    assert state.tokens == [0, 3, 1, 2] and state.token_frames == [1, 1, 2, 2] and other.tokens == [0, 3]
    assert (other.token, other.hidden.max(), other.cell.max()) == (BLANK, 0, 0)
    assert session.asked[2] == [BLANK]
    (kept,), session = decoded(RNNT, script)
    assert kept.tokens == [0, 3, 1] and session.asked[2] == [3]


def test_a_token_of_tdt_that_resets_goes_on_by_one_frame():
    script = {(0, 0): (3, 4), (1, 0): (1, 1)}
    assert decoded(TDT, script, resetting=frozenset({3}))[0][0].token_frames == [0, 1]
    assert decoded(TDT, script)[0][0].token_frames == [0]
