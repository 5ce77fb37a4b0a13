"""Graphs of fixed shapes, as torch modules: NeMo's streaming at every lookahead, and what would not be it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from nemoport.apple.graphs import PRE_FIRST, conformer_parts, graph_interfaces, layers_of, negative_mask
from nemoport.apple.session import AppleSession
from nemoport.chunker import flush_rules
from nemoport.errors import UsageError
from nemoport.export.apple.modules import SubsamplingFirst, graph_modules
from nemoport.export.apple.trace import AppleParameters, resolved
from nemoport.export.profile import profiled
from nemoport.spec import MASKED_SCORE
from nemoport.tokens import read_tokens
from nemoport.validate.gates.numeric import differences
from nemoport.validate.runs import CorpusRunner

CLOSE = 1e-4


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def session_of(checkpoint, lookahead, parts=2, change=lambda modules: None):
    modules, channels = graph_modules(checkpoint, lookahead, parts, torch.float32)
    graphs = graph_interfaces(checkpoint.spec, lookahead, channels, parts, "float32")
    change(modules)

    def run(name, feeds):
        with torch.no_grad():
            values = modules[name](**{key: torch.from_numpy(array) for key, array in feeds.items()})
        values = values if isinstance(values, tuple) else (values,)
        found = {key: value.numpy() for key, value in zip(graphs[name].outputs, values, strict=True)}
        assert {key: (str(a.dtype), a.shape) for key, a in found.items()} == {
            key: (one.dtype, one.shape) for key, one in graphs[name].outputs.items()
        }
        return found

    return AppleSession(checkpoint.spec, lookahead, graphs, run)


def compared(session, build, corpus, oracle):
    """flush rule -> (utterances whose tokens differ from NeMo's, largest difference of a frame)."""
    artifact_shared = build / "shared"
    filterbank = np.fromfile(artifact_shared / "filterbank.bin", np.float32).reshape(session.spec.frontend.n_mels, -1)
    transcribed = CorpusRunner(session, filterbank, read_tokens(artifact_shared / "tokens.txt")).run(corpus, session.lookahead, 3)
    found = {}
    for flush in flush_rules(session.spec):
        if (expected := oracle.expected(session.lookahead, flush)) is not None:
            differing = [h.id for h, e in zip(transcribed[flush], expected, strict=True) if h.tokens != e.tokens]
            found[flush] = differing, differences(transcribed[flush], expected)[0]
    return found


@pytest.mark.parametrize("lookahead", [13, 6, 1, 0])
def test_every_lookahead_is_nemos_streaming(reference_checkpoint, build, eval_corpus, oracle, lookahead):
    found = compared(session_of(reference_checkpoint, lookahead), build, eval_corpus, oracle)
    assert set(found) == ({"full", "nemo"} if lookahead else {"nemo"})
    for differing, worst in found.values():
        assert differing == []
        assert worst < CLOSE


def test_lookahead_0_needs_what_nemos_second_window_hears(reference_checkpoint, build, eval_corpus, oracle):
    """The offline encoder's padding in its place gives other frames."""

    def offline(modules):
        modules[PRE_FIRST] = SubsamplingFirst(modules[PRE_FIRST].parts, 0)

    ((_, worst),) = compared(session_of(reference_checkpoint, 0, change=offline), build, eval_corpus, oracle).values()
    assert worst > 100 * CLOSE


def test_a_length_that_is_not_told_is_found(reference_checkpoint, build, eval_corpus, oracle):
    """A last window that counts as full, as the card's graphs have it."""
    session = session_of(reference_checkpoint, 6)
    told = session.run
    session.run = lambda name, feeds: told(
        name, {key: np.full_like(a, 10_000) if key == "length" else a for key, a in feeds.items()}
    )
    worst = max(worst for _, worst in compared(session, build, eval_corpus, oracle).values())
    assert worst > 100 * CLOSE


def test_cuts_of_the_conformer_give_the_same(reference_checkpoint, build, eval_corpus, oracle):
    for parts in (1, 3):
        found = compared(session_of(reference_checkpoint, 6, parts), build, eval_corpus, oracle)
        assert [differing for differing, _ in found.values()] == [[], []]
    assert conformer_parts(2) == ["stream_conformer_a", "stream_conformer_b"]
    assert layers_of(2, 5) == [range(0, 3), range(3, 5)]


def test_a_mask_of_groups_is_that_of_the_encoder(reference_checkpoint):
    from nemoport.export.encoder import within_chunk

    streaming = profiled(reference_checkpoint, "1120ms/1").spec.streaming
    frames, left = streaming.max_chunk_enc_frames, streaming.left_context_enc_frames
    expected = within_chunk(streaming, torch.zeros(1, 1, 1, left + frames), torch.tensor(frames)).clamp(min=MASKED_SCORE)
    assert np.array_equal(negative_mask(streaming, frames, left, frames), expected.numpy())
    short = negative_mask(streaming, frames, 3, 5)
    assert (short[..., : left - 3] == MASKED_SCORE).all() and (short[..., left + 5 :] == MASKED_SCORE).all()
    assert not short[0, 0, 0, left - 3 : left + 1].any()


def test_frames_of_another_chunk_and_another_lookahead_are_refused(reference_checkpoint):
    session = session_of(reference_checkpoint, 1)
    spec = reference_checkpoint.spec
    state = session.initial_state(1)
    mel = np.zeros((1, spec.frontend.n_mels, spec.streaming.window_mel_frames(6, first=True)), np.float32)
    with pytest.raises(UsageError, match="9 or 25 mel frames"):
        session.encode(mel, np.array([mel.shape[2]]), state)
    zeros = np.zeros(spec.decoding.state_shape(1), np.float32)
    with pytest.raises(UsageError, match="last chunk"):
        session.step(np.ones((1, 1, spec.streaming.d_model), np.float32), np.array([0], np.int32), (zeros, zeros))


def test_the_recipe_names_the_lookahead_and_offline_models_are_refused(reference_checkpoint):
    parameters, spec = AppleParameters("float32", 2), reference_checkpoint.spec
    assert resolved(parameters, spec, "coreai").lookahead == 6
    assert resolved(parameters, profiled(reference_checkpoint, "160ms/1").spec, "coreai").lookahead == 1
    offline = replace(spec, kind="offline-tdt", streaming=None, offline=spec.streaming)
    with pytest.raises(UsageError, match="streaming checkpoints"):
        resolved(parameters, offline, "coreai")
