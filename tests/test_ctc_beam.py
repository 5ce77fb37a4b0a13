"""CTC prefix beam search: probabilities of texts against the sum over all alignments, hotwords, language model, streams."""

import itertools
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nemoport.beam import BeamSearch
from nemoport.confidence import log_softmax
from nemoport.ctc import CtcState
from nemoport.ctc_beam import CtcBeam
from nemoport.errors import UsageError
from nemoport.heads import head_of
from nemoport.hotwords import Hotwords
from nemoport.language_model import ArpaFile
from nemoport.search import search_of
from nemoport.spec import DecodingSpec

PIECES = ["<unk>", "▁", "a", "b"]
BLANK = len(PIECES)


def random_rows(seed, n_frames, sharpness=1.0):
    scores = np.random.default_rng(seed).standard_normal((n_frames, BLANK + 1)) * sharpness
    return log_softmax(scores)


def searched(rows, step=None, **settings):
    beam = CtcBeam.initial(BeamSearch(**{"width": 2000} | settings), BLANK)
    for start in range(0, len(rows), step := step or len(rows) or 1):
        beam.run(rows[start : start + step])
    return beam


def collapsed(alignment):
    return tuple(token for token, _ in itertools.groupby(alignment) if token != BLANK)


def all_texts(rows):
    """Text -> its probability, by every alignment there is."""
    sums = {}
    for alignment in itertools.product(range(BLANK + 1), repeat=len(rows)):
        value = math.exp(sum(rows[t, token] for t, token in enumerate(alignment)))
        sums[collapsed(alignment)] = sums.get(collapsed(alignment), 0.0) + value
    return sums


@pytest.mark.parametrize("seed", range(4))
def test_a_wide_beam_sums_every_alignment(seed):
    rows = random_rows(seed, 5)
    exact = all_texts(rows)
    found = {tuple(tokens): math.exp(score) for tokens, score in searched(rows).n_best}
    assert sum(found.values()) == pytest.approx(1.0, abs=1e-3) and len(found) > 500
    for text, probability in found.items():
        assert probability == pytest.approx(exact[text], rel=1e-9)
    assert tuple(searched(rows).tokens) == max(exact, key=exact.get)


def test_times_are_those_of_the_likeliest_alignment():
    alignment = [4, 2, 2, 4, 4, 3, 4, 3, 3, 3, 4]
    rows = log_softmax(9.0 * np.eye(BLANK + 1)[alignment])
    beam = searched(rows, width=8)
    assert (beam.tokens, beam.token_frames, beam.token_durations) == ([2, 3, 3], [1, 5, 7], [2, 1, 3])
    assert min(beam.token_confidences) > 0.99 and beam.frame == len(alignment)


def test_a_likelier_alignment_of_the_same_text_has_its_own_times():
    late = certain((BLANK, 2, 2.0), BLANK, BLANK, 2, 2, BLANK)
    late[0] = np.log([0.001, 0.001, 0.1, 0.001, 0.897])  # "a" may come on the first frame
    beam = searched(late[:, :], width=8)
    assert (beam.tokens, beam.token_frames, beam.token_durations) == ([2], [3], [2])
    beam = searched(certain(2, (BLANK, 2, 3.0), 2), width=8)  # "aa", or one "a" on the first frames
    assert {path.tokens: path.durations for path in beam.paths}[2,] == (1,)


def test_a_run_that_may_go_on_is_not_final():
    rows, beam = certain(2, 2, BLANK, 3, BLANK), CtcBeam.initial(BeamSearch(4), BLANK)
    found = []
    for row in rows:
        beam.run(row[None])
        found.append((beam.tokens, beam.n_final))
    assert found == [([2], 0), ([2], 0), ([2], 1), ([2, 3], 1), ([2, 3], 2)]


@pytest.mark.parametrize("final", [None, 6])
def test_text_does_not_depend_on_the_chunks_and_what_is_final_stays(final):
    rows = random_rows(7, 120, sharpness=3.0)
    whole = searched(rows, width=8, final_enc_frames=final)
    assert len(whole.tokens) > 40
    for step in (1, 5, 14):
        beam, kept = CtcBeam.initial(BeamSearch(8, final_enc_frames=final), BLANK), []
        for start in range(0, len(rows), step):
            beam.run(rows[start : start + step])
            assert beam.tokens[: len(kept)] == kept
            kept = beam.tokens[: beam.n_final]
            if final:
                assert all(frame > beam.frame - 1 - final for frame in beam.token_frames[beam.n_final :])
        assert beam.n_best == whole.n_best and beam.token_frames == whole.token_frames
        assert beam.token_durations == whole.token_durations


def certain(*steps):
    """Rows where each step is a token, or a token and what another is below it in log score."""
    rows = np.full((len(steps), BLANK + 1), -20.0)
    for row, step in zip(rows, steps, strict=True):
        token, other, below = step if isinstance(step, tuple) else (step, step, 0.0)
        row[token], row[other] = 0.0, -below
    return log_softmax(rows)


def test_a_hotword_wins_where_it_is_nearly_as_likely_and_is_taken_back_where_it_breaks_off():
    hotwords = Hotwords(PIECES, ["ab"], boost=2.0)
    near = certain(1, BLANK, 2, BLANK, (2, 3, 3.0), BLANK)  # "aa", or "ab" at 3 less
    assert searched(near, width=4).tokens == [1, 2, 2]
    assert searched(near, width=4, hotwords=hotwords).tokens == [1, 2, 3]
    far = certain(1, BLANK, 2, BLANK, (2, 3, 7.0), BLANK)  # beyond REACH
    assert searched(far, width=4, hotwords=Hotwords(PIECES, ["ab"], boost=1000.0)).tokens == [1, 2, 2]
    only_begun = certain(1, BLANK, (3, 2, 3.0), BLANK, 3, BLANK)  # "bb": "ab" at 3 less
    assert searched(only_begun, width=4, hotwords=Hotwords(PIECES, ["aba"], boost=2.0)).tokens == [1, 3, 3]
    third = certain(1, BLANK, 2, BLANK, (2, 3, 3.0), BLANK)
    third[4, 1] = third[4, 2] - 1.0  # more tokens are near than a path is extended by
    assert searched(third, width=2, beta=0, hotwords=hotwords).tokens == [1, 2, 3]
    best, score = searched(near, width=4, hotwords=hotwords).n_best[0]
    plain = dict((tuple(tokens), value) for tokens, value in searched(near, width=4).n_best)
    assert score == pytest.approx(plain[tuple(best)] + 3 * 2.0, abs=1e-6)  # a boost for each of its three tokens


def test_silence_with_any_boost_is_silent():
    rows = certain(*[BLANK] * 50)
    assert searched(rows, width=4, hotwords=Hotwords(PIECES, ["ab"], boost=1000.0)).tokens == []


class Scores:
    """A session whose frames, f32 [B, T, 1], are the numbers of rows."""

    def __init__(self, rows):
        self.rows, self.spec = rows.astype(np.float32), SimpleNamespace(decoding=DecodingSpec(BLANK), kind="offline-ctc")

    def step(self, frames, tokens, state):
        return self.rows[frames[..., 0].astype(int)], state


def started(search):
    return head_of(SimpleNamespace(head="ctc")).start(DecodingSpec(BLANK), search, CtcState().confidence)


def decoded(rows, search=None):
    state = started(search)
    state.decode(Scores(rows), np.arange(len(rows))[None, :, None].astype(np.float32), np.array([len(rows)]), [state])
    return state


def test_a_head_searches_with_a_beam_of_two_or_more_and_only_valid_frames():
    assert type(started(None)) is type(started(BeamSearch(1))) is CtcState
    rows, states = random_rows(3, 20, 3.0), [started(BeamSearch(4)) for _ in range(3)]
    assert type(states[0]) is CtcBeam
    frames = np.tile(np.arange(20), (3, 1))[..., None].astype(np.float32)
    CtcBeam.decode(Scores(rows), frames, np.array([20, 7, 0]), states)
    for state, length in zip(states, (20, 7, 0), strict=True):
        assert state.frame == length and state.tokens == searched(rows[:length].astype(np.float32), width=4).tokens


def test_greedy_hotwords_take_what_is_near_and_make_no_token_of_a_blank():
    search = BeamSearch(1, hotwords=Hotwords(PIECES, ["ab"], boost=4.0))
    assert decoded(certain(1, BLANK, 2, BLANK, (2, 3, 3.0), BLANK)).tokens == [1, 2, 2]
    assert decoded(certain(1, BLANK, 2, BLANK, (2, 3, 3.0), BLANK), search).tokens == [1, 2, 3]
    assert decoded(certain(1, BLANK, 2, BLANK, (BLANK, 3, 1.0), BLANK), search).tokens == [1, 2]
    assert decoded(
        certain(1, BLANK, 2, BLANK, (2, 3, 7.0), BLANK), BeamSearch(1, hotwords=Hotwords(PIECES, ["ab"], 1e3))
    ).tokens == [1, 2, 2]


def test_the_run_of_a_hotword_that_was_taken_for_another_token_is_one_token():
    search = BeamSearch(1, hotwords=Hotwords(PIECES, ["ab"], boost=4.0))
    for rest in ([(2, 3, 3.0)], [3], [(2, 3, 3.0), 3]):
        state = decoded(certain(1, BLANK, 2, BLANK, (2, 3, 3.0), *rest, BLANK), search)
        assert (state.tokens, state.token_frames, state.token_durations[-1]) == ([1, 2, 3], [0, 2, 4], 1 + len(rest))
    # "b" cannot follow itself without a blank, whatever it is worth.
    again = decoded(certain(1, 2, 3, (1, 3, 1.0), BLANK), BeamSearch(1, hotwords=Hotwords(PIECES, ["abb"], boost=4.0)))
    assert again.tokens == [1, 2, 3, 1]


def test_what_a_language_model_goes_with():
    spec, arpa = SimpleNamespace(streaming=None, head="ctc", kind="offline-ctc"), ArpaFile(Path("none.arpa"))
    with pytest.raises(UsageError, match="needs a beam"):
        search_of(spec, PIECES, 1, [], None, arpa)
    spec.head = "rnnt"
    with pytest.raises(UsageError, match="CTC head only"):
        search_of(spec, PIECES, 4, [], None, arpa)
    spec.head = "ctc"
    search = search_of(spec, PIECES, 3, ["ab"], 2.0)
    assert search.width == 3 and search.hotwords and search.language_model is None
