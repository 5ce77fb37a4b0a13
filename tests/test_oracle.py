"""The oracle is NeMo's own run, is recorded once, and agrees with an implementation that shares no code with it."""

import json
import shutil
from dataclasses import replace

import hf_oracle
import numpy as np
import pytest

from nemoport.errors import ArtifactError
from nemoport.frontend import LogMel, mel_filterbank
from nemoport.validate import baseline, nemo, nemo_runs
from nemoport.validate import oracle as recording
from nemoport.validate.oracle import OFFLINE, STREAMING, record_oracle, sample_positions

FRAME_TOLERANCE = 2e-5  # float32 in another order of summation; frames have a magnitude of about 1


@pytest.fixture(scope="module")
def model(reference_checkpoint):
    return nemo.restore(reference_checkpoint)


@pytest.fixture(scope="module")
def second(reference_checkpoint):
    return hf_oracle.from_checkpoint(reference_checkpoint)


def test_restored_model_is_in_eval_mode_without_dither(model):
    assert not model.training
    assert not any(module.training for module in model.modules())
    assert model.preprocessor.featurizer.dither == 0


def as_nemos_example_streams(model, samples) -> str:
    """The loop of NeMo's examples/asr/asr_cache_aware_streaming/speech_to_text_cache_aware_streaming_infer.py."""
    from nemo.collections.asr.parts.utils.streaming_utils import CacheAwareStreamingAudioBuffer

    buffer = CacheAwareStreamingAudioBuffer(model, online_normalization=False, pad_and_drop_preencoded=False)
    buffer.append_audio(samples)
    channel, time, length = model.encoder.get_initial_cache_state(batch_size=1)
    hypotheses = predictions = texts = None
    for step, (mel, mel_length) in enumerate(buffer):
        predictions, texts, channel, time, length, hypotheses = model.conformer_stream_step(
            processed_signal=mel,
            processed_signal_length=mel_length,
            cache_last_channel=channel,
            cache_last_time=time,
            cache_last_channel_len=length,
            keep_all_outputs=buffer.is_buffer_empty(),
            previous_hypotheses=hypotheses,
            previous_pred_out=predictions,
            drop_extra_pre_encoded=model.encoder.streaming_cfg.drop_extra_pre_encoded if step else 0,
            return_transcription=True,
        )
    return texts[0].text


@pytest.mark.parametrize("lookahead", [6, 0])
def test_streams_that_share_a_call_equal_nemos_own_loop(model, eval_corpus, oracle, lookahead):
    """The record, made of many utterances at once, against NeMo's example, which streams one."""
    utterances = eval_corpus.utterances[::3]
    with nemo.exact(model), nemo.quiet():
        alone = [nemo_runs.stream(model, [u.samples()], lookahead)[0] for u in utterances]
        texts = [as_nemos_example_streams(model, u.samples()) for u in utterances]
    recorded = oracle.runs[STREAMING, lookahead][::3]
    assert [r.text for r in recorded] == texts
    assert [r.tokens for r in recorded] == [r.tokens for r in alone]
    assert [r.token_frames for r in recorded] == [r.token_frames for r in alone]
    for ours, theirs in zip(recorded, alone, strict=True):
        assert ours.enc_frames == len(theirs.frames)
        frames = theirs.frames[sample_positions(len(theirs.frames), lookahead)]
        np.testing.assert_allclose(ours.sampled_frames, frames, atol=FRAME_TOLERANCE)


def test_record_holds_every_lookahead_and_says_something(oracle, reference_checkpoint, eval_corpus):
    lookaheads = reference_checkpoint.spec.streaming.lookaheads
    assert set(oracle.runs) == {(STREAMING, r) for r in lookaheads} | {(OFFLINE, r) for r in lookaheads if r}
    for records in oracle.runs.values():
        assert len(records) == len(eval_corpus.utterances)
        assert all(r.tokens and r.text and len(r.tokens) == len(r.token_frames) for r in records)
        assert all(list(r.token_frames) == sorted(r.token_frames) for r in records)
        assert all(max(r.token_frames) < r.enc_frames for r in records)
        assert all(np.isfinite(r.sampled_frames).all() and np.ptp(r.sampled_frames) > 0 for r in records)
    assert oracle.expected(0, "full") is None
    assert oracle.expected(6, "full") is oracle.runs[OFFLINE, 6]
    assert oracle.expected(6, "nemo") is oracle.runs[STREAMING, 6]


def test_nothing_is_recorded_twice(oracle, reference_checkpoint, eval_corpus, tmp_path, monkeypatch):
    build = tmp_path / "build"
    shutil.copytree(oracle.folder.parent, build / "oracle")
    started = []
    start = recording.in_nemo
    monkeypatch.setattr(recording, "in_nemo", lambda *task: started.append(1) or start(*task))
    again = record_oracle(reference_checkpoint, eval_corpus, build)
    assert not started
    assert again.digest == oracle.digest
    (again.folder / f"{OFFLINE}-6.json").unlink()  # as if killed before this run was complete
    before = {p.name: p.stat().st_mtime_ns for p in again.folder.iterdir() if "-6" not in p.name}
    resumed = record_oracle(reference_checkpoint, eval_corpus, build)
    assert started == [1]
    assert resumed.runs[OFFLINE, 6][0].tokens == oracle.runs[OFFLINE, 6][0].tokens
    assert before == {p.name: p.stat().st_mtime_ns for p in again.folder.iterdir() if "-6" not in p.name}


def test_other_inputs_are_another_oracle(oracle, reference_checkpoint, eval_corpus, monkeypatch):
    fewer = replace(eval_corpus, utterances=eval_corpus.utterances[1:])
    other = replace(reference_checkpoint, sha256="0" * 64)
    assert recording.oracle_digest(reference_checkpoint, eval_corpus) == oracle.digest
    assert recording.oracle_digest(reference_checkpoint, fewer) != oracle.digest
    assert recording.oracle_digest(other, eval_corpus) != oracle.digest
    monkeypatch.setattr(recording, "version", lambda package: "0")
    assert recording.oracle_digest(reference_checkpoint, eval_corpus) != oracle.digest


@pytest.mark.parametrize("damage", ["frames", "no frames", "utterances"])
def test_damaged_record_is_refused(oracle, reference_checkpoint, eval_corpus, tmp_path, damage):
    build = tmp_path / "build"
    folder = shutil.copytree(oracle.folder.parent, build / "oracle") / oracle.folder.name
    packed, path = folder / f"{STREAMING}-6.npz", folder / f"{STREAMING}-6.json"
    if damage == "frames":
        packed.write_bytes(packed.read_bytes()[:-1] + b"x")
    elif damage == "no frames":
        packed.unlink()
    else:
        raw = json.loads(path.read_text())
        raw["utterances"].reverse()
        path.write_text(json.dumps(raw))
    with pytest.raises(ArtifactError, match="damaged"):
        record_oracle(reference_checkpoint, eval_corpus, build)


@pytest.mark.parametrize("lookahead", [0, 6, 13])
@pytest.mark.parametrize("frames", [0, 1, 13, 40, 5000])
def test_sampled_frames_hold_both_ends_and_are_bounded(frames, lookahead):
    positions = sample_positions(frames, lookahead).tolist()
    chunk = min(lookahead + 1, frames)
    assert positions[:chunk] == list(range(chunk))
    assert positions[len(positions) - chunk :] == list(range(frames - chunk, frames))
    assert positions == sorted(set(positions))
    assert len(positions) <= min(frames, 2 * chunk + recording.EVENLY_SPACED_SAMPLES)


@pytest.mark.parametrize("lookahead", [13, 6, 1, 0])
def test_second_oracle_agrees(second, oracle, model, reference_checkpoint, eval_corpus, lookahead):
    """HF offline and streaming frames and greedy tokens, from HF's own front end."""
    spec = reference_checkpoint.spec
    for index in (0, len(eval_corpus.utterances) - 1):
        samples = eval_corpus.utterances[index].samples()
        features, mask = hf_oracle.mel(samples, spec.frontend.n_mels)
        with nemo.exact(model), nemo.quiet():
            run = nemo_runs.offline(model, samples, lookahead)
            offline = hf_oracle.offline_frames(second, features, mask, lookahead)[: len(run.frames)]
            valid = features[:, : len(samples) // spec.frontend.hop_samples]
            streamed = hf_oracle.streaming_frames(second, valid, spec.streaming, lookahead)
            tokens = hf_oracle.offline_tokens(second, features, mask, lookahead)
        np.testing.assert_allclose(offline, run.frames, atol=FRAME_TOLERANCE)
        # HF keeps a cache in every convolution of the subsampling, so its streaming equals the offline run at
        # lookahead 0 too, where NeMo's own does not.
        np.testing.assert_allclose(streamed, run.frames[: len(streamed)], atol=FRAME_TOLERANCE)
        assert tokens == run.tokens
        if lookahead:
            recorded = oracle.runs[OFFLINE, lookahead][index]
            assert tokens == recorded.tokens
            frames = streamed[[p for p in sample_positions(recorded.enc_frames, lookahead) if p < len(streamed)]]
            np.testing.assert_allclose(frames, recorded.sampled_frames[: len(frames)], atol=FRAME_TOLERANCE)


@pytest.mark.parametrize("lookahead", [6, 1])
def test_baseline_windows_are_nemos_padded_ones(model, reference_checkpoint, eval_corpus, lookahead):
    """Nine zero frames first: NeMo's `pad_and_drop_preencoded`, up to the tail that NeMo's buffer handles its own way."""
    from nemo.collections.asr.parts.utils.streaming_utils import CacheAwareStreamingAudioBuffer

    spec = reference_checkpoint.spec
    samples = eval_corpus.utterances[-1].samples()
    model.encoder.set_default_att_context_size([spec.streaming.left_context_enc_frames, lookahead])
    buffer = CacheAwareStreamingAudioBuffer(model, online_normalization=False, pad_and_drop_preencoded=True)
    buffer.append_audio(samples)
    theirs = [mel[0].numpy() for mel, _ in buffer][:-1]
    log_mel = LogMel(spec.frontend, mel_filterbank(spec.frontend))
    ours = baseline.windows(log_mel.whole(samples), spec.streaming, lookahead)
    assert len(theirs) > 3
    for chunk, mel in zip(ours, theirs, strict=False):
        np.testing.assert_allclose(chunk.mel, mel, atol=1e-3)  # NeMo's spectrum is float32, ours float64
    assert sum(c.length - spec.streaming.pre_encode_cache_mel_frames for c in ours) == len(samples) // 160
