"""CTC: models with that head alone, and the CTC half of hybrids, beside NeMo's own classes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nemoport.ctc import CtcState
from nemoport.ctc_times import with_nemo_times
from nemoport.errors import CheckpointError, OutputError, UsageError
from nemoport.export.build import export_checkpoint
from nemoport.export.checkpoint import read_checkpoint
from nemoport.recognizer import Recognizer
from nemoport.reference import random_checkpoint as made_up
from nemoport.spec import CTC, DecodingSpec
from nemoport.speech.corpus import read_corpus
from nemoport.validate import nemo, nemo_runs

# Preset -> the head to choose, and the cache layouts.
MODELS = {
    "tiny-ctc": ("", ("nemo",)),
    "tiny-streaming-ctc": ("", ("nemo", "kv")),
    "tiny-tdt_ctc": (CTC, ("nemo",)),
    "tiny-streaming-hybrid": (CTC, ("nemo", "kv")),
}
AUDIO = [made_up.pseudo_speech(seed, 3.0) for seed in (77, 78, 79)]


@pytest.fixture(scope="module", params=MODELS)
def model(request, random_checkpoint, tmp_path_factory):
    """The checkpoint's path, the checkpoint, and its artifacts in each cache layout."""
    head, layouts = MODELS[request.param]
    path = random_checkpoint(request.param)
    checkpoint = read_checkpoint(str(path), head)
    build = tmp_path_factory.mktemp("build")
    return path, checkpoint, [export_checkpoint(checkpoint, build, layout).folder for layout in layouts]


def test_offline_and_streams_have_nemos_tokens_and_times(model):
    _, checkpoint, folders = model
    oracle, spec, emitted = nemo.restore(checkpoint), checkpoint.spec, 0
    with nemo.exact(oracle):
        for lookahead in spec.lookaheads:
            for flush in ("full", "nemo") if spec.streaming else ("full",):
                if lookahead == 0 and flush == "full":
                    continue  # NeMo's offline run differs from its streams there
                if flush == "nemo":
                    runs = nemo_runs.stream(oracle, AUDIO, lookahead)
                else:
                    runs = [nemo_runs.offline(oracle, samples, lookahead) for samples in AUDIO]
                for folder in folders:
                    recognizer = Recognizer.open(folder, lookahead, flush=flush, threads=1)
                    found = recognizer.transcribe([(str(i), samples) for i, samples in enumerate(AUDIO)], streams=2)
                    for one in found:
                        run = runs[int(one.id)]
                        frames = tuple(round(seconds / spec.frame_seconds) for seconds in one.token_seconds)
                        assert (one.tokens, one.text, frames) == (run.tokens, run.text, run.token_frames)
                        emitted += len(one.tokens)
    assert emitted > 20


def test_the_oracle_is_nemos_own_transcription(model):
    """Of the file itself, restored by NeMo, a hybrid told to decode by CTC."""
    from nemo.collections.asr.models import ASRModel

    path, checkpoint, _ = model
    with nemo.quiet():
        theirs = ASRModel.restore_from(str(path), map_location="cpu").eval()
        if checkpoint.hybrid:
            theirs.change_decoding_strategy(decoder_type="ctc")
        theirs.preprocessor.featurizer.dither = 0.0
        lookahead = checkpoint.spec.lookaheads[0]
        if lookahead is not None:
            theirs.encoder.set_default_att_context_size([checkpoint.spec.require_streaming().left_context_enc_frames, lookahead])
        texts = [one.text for one in theirs.transcribe(AUDIO, batch_size=1, verbose=False)]
    oracle = nemo.restore(checkpoint)
    with nemo.exact(oracle):
        assert [nemo_runs.offline(oracle, samples, lookahead).text for samples in AUDIO] == texts
    assert all(texts)


def test_a_hybrid_has_two_heads_and_no_third(random_checkpoint):
    path = str(random_checkpoint("tiny-tdt_ctc"))
    kinds = [read_checkpoint(path, head).spec.kind for head in ("", "tdt", CTC)]
    assert kinds == ["offline-tdt", "offline-tdt", "offline-ctc"]
    with pytest.raises(UsageError, match="no head 'rnnt'"):
        read_checkpoint(path, "rnnt")
    with pytest.raises(UsageError, match="no head 'ctc'"):
        read_checkpoint(str(random_checkpoint("tiny-tdt")), CTC)


def test_the_two_heads_share_their_encoder_and_no_build(random_checkpoint, tmp_path):
    path = str(random_checkpoint("tiny-tdt_ctc"))
    files = {}
    for head in ("tdt", CTC):
        folder = export_checkpoint(read_checkpoint(path, head), tmp_path / head).folder
        files[head] = (folder / "encoder_model.onnx.data").read_bytes()
    assert files["tdt"] == files[CTC]
    before = (tmp_path / "tdt" / "config.json").read_bytes()
    with pytest.raises(OutputError, match="other head"):
        export_checkpoint(read_checkpoint(path, CTC), tmp_path / "tdt")
    assert (tmp_path / "tdt" / "config.json").read_bytes() == before


class Scores:
    """A session whose scores are stated: one row a frame."""

    def __init__(self, labels, blank):
        self.spec = type("Spec", (), {"decoding": DecodingSpec(vocab_size=blank)})
        self._labels = labels

    def step(self, frames, tokens, state):
        scores = np.full((*frames.shape[:2], self.spec.decoding.n_scores), -9.0, np.float32)
        for row, frame in np.ndindex(frames.shape[:2]):
            scores[row, frame, self._labels[int(frames[row, frame, 0])]] = 0.0
        return scores, state


# NeMo's example of knowledge/kinds.md: b 5 5 b b 7 b 7 7 7 9 b, with blank 9 here and 9 as 8.
LABELS = [9, 5, 5, 9, 9, 7, 9, 7, 7, 7, 8, 9]


@pytest.mark.parametrize("sizes", [[12], [2, 10], [8, 4], [1] * 12])
def test_a_run_of_equal_frames_is_one_token_over_chunks_too(sizes):
    session, state, at = Scores(LABELS, 9), CtcState(), 0
    for size in sizes:
        frames = np.arange(at, at + size, dtype=np.float32)[None, :, None]
        CtcState.decode(session, frames, np.array([size]), [state])
        at += size
        assert state.n_final == len(state.tokens) - (LABELS[at - 1] != 9)
    assert (state.tokens, state.token_frames, state.token_durations) == ([5, 7, 7, 8], [1, 5, 7, 10], [2, 1, 3, 1])
    assert state.frame == 12 and state.n_final == 4


def test_frames_behind_the_valid_ones_are_not_decoded():
    session, states = Scores(LABELS, 9), [CtcState(), CtcState()]
    frames = np.stack([np.arange(12), np.arange(12)])[:, :, None].astype(np.float32)
    CtcState.decode(session, frames, np.array([6, 0]), states)
    assert [state.tokens for state in states] == [[5, 7], []] and [state.frame for state in states] == [6, 0]


def test_words_last_as_long_as_their_runs(model):
    _, checkpoint, folders = model
    recognizer = Recognizer.open(folders[0], threads=1)
    one = next(recognizer.transcribe([("", AUDIO[0])]))
    assert set(one.token_duration_seconds) >= {checkpoint.spec.frame_seconds} and min(one.token_duration_seconds) > 0
    assert all(word.end > word.start and 0 <= word.confidence <= 1 for word in one.words)
    assert all(a.start <= b.start for a, b in zip(one.words, one.words[1:], strict=False))


def test_nemos_own_times_by_option(ctc_checkpoint, tmp_path):
    """Words of NeMo's `timestamps=True`, on speech: to the frame."""
    from nemo.collections.asr.models import ASRModel

    path = ctc_checkpoint("ctc-offline")
    checkpoint = read_checkpoint(str(path))
    recognizer = Recognizer.open(export_checkpoint(checkpoint, tmp_path).folder, threads=1)
    speech = read_corpus(Path(__file__).parent.parent / "reference/audio/eval-tdt.jsonl", 16000).utterances[:6]
    with nemo.quiet():
        theirs = ASRModel.restore_from(str(path), map_location="cpu").eval()
        theirs.preprocessor.featurizer.dither = 0.0
        audio = [utterance.samples() for utterance in speech]
        wanted = theirs.transcribe(audio, batch_size=1, timestamps=True, verbose=False)
    for samples, one in zip(audio, wanted, strict=True):
        found = next(recognizer.transcribe([("", samples)]))
        nemos = with_nemo_times(found, recognizer.word_times(), checkpoint.spec)
        frame = checkpoint.spec.frame_seconds
        times = [(word.text, round(word.start / frame), round(word.end / frame)) for word in nemos.words]
        wanted_times = [(word["word"], word["start_offset"], word["end_offset"]) for word in one.timestamp["word"]]
        assert times == [word for word in wanted_times if word[0]]  # a space alone is an empty word to NeMo
        assert nemos.text == found.text and nemos.tokens == found.tokens
        assert all(a.start <= b.start for a, b in zip(nemos.words, found.words, strict=True))
    with pytest.raises(UsageError, match="of a CTC model"):
        with_nemo_times(found, recognizer.word_times(), replace(checkpoint.spec, kind="offline-tdt"))


def test_config_json_has_the_rule_and_no_prediction_network(model):
    _, checkpoint, folders = model
    config = json.loads((folders[0].parent / "config.json").read_text())
    assert "decoder" not in config and config["ctc"]["vocab_size"] == checkpoint.spec.decoding.vocab_size + 1
    assert config["ctc"]["blank_id"] == checkpoint.spec.decoding.blank_id


def test_a_spec_that_contradicts_its_head_is_refused(model):
    _, checkpoint, _ = model
    spec = checkpoint.spec
    for wrong in (
        replace(spec, decoding=DecodingSpec(spec.decoding.vocab_size, 1, 8, 8, 10)),
        replace(spec, kind="offline-tdt" if spec.offline else "streaming-rnnt"),
    ):
        with pytest.raises(Exception, match="contradicts itself"):
            type(spec).from_dict(wrong.to_dict())


def test_weights_of_another_vocabulary_are_refused(model, tmp_path):
    _, checkpoint, _ = model
    spec = replace(checkpoint.spec, decoding=DecodingSpec(checkpoint.spec.decoding.vocab_size - 1))
    with pytest.raises(CheckpointError, match="another vocabulary"):
        export_checkpoint(replace(checkpoint, spec=spec), tmp_path)
