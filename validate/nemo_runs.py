"""Runs a restored checkpoint in NeMo itself: cache-aware streaming, and offline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class NemoRun:
    """NeMo's run of one utterance. frames: f32 [T', d_model]; token_frames: encoder frame of each token."""

    tokens: tuple[int, ...]
    token_frames: tuple[int, ...]
    text: str
    frames: np.ndarray


def stream(
    model: Any,
    audio: Sequence[np.ndarray],
    lookahead: int,
    languages: Sequence[str] | None = None,
    within: int | None = None,
) -> list[NemoRun]:
    """Runs cache-aware streaming over several utterances, each f32 [samples], at one lookahead.

    languages: the prompt of each utterance, by names of the dictionary of a model with a prompt. within: how many frames the
    attention looks ahead, where that is less than the chunk.

    Each utterance has a CacheAwareStreamingAudioBuffer of its own, so that its length and its flush are its own; the
    windows that are at the same step and have the same size and language share a call, because a call has one prompt in
    NeMo. That is three times as fast as one by one, and equal to it: tests/test_oracle.py compares both.
    """
    _set_context(model, lookahead, within)
    drop = model.encoder.streaming_cfg.drop_extra_pre_encoded
    streams = [
        _Stream(_windows(model, samples), model.encoder.get_initial_cache_state(batch_size=1), language)
        for samples, language in zip(audio, languages or [None] * len(audio), strict=True)
    ]
    for step in range(max(len(s.windows) for s in streams)):
        groups: dict[tuple[int, bool, str | None], list[_Stream]] = {}
        for one in streams:
            if step < len(one.windows):
                mel, _, last = one.windows[step]
                groups.setdefault((mel.shape[-1], last, one.language), []).append(one)
        for (_, last, language), members in groups.items():
            if language is not None:
                model.set_inference_prompt(language)  # without it NeMo leaves the prompt out, silently
            _step(model, members, step, last, drop if step else 0)
    if _is_ctc(model):
        return [_ctc_result(model, s.labels, s.frames) for s in streams]
    return [_result(model, s.hypothesis, s.frames) for s in streams]


def offline(
    model: Any, samples: np.ndarray, lookahead: int | None, slot: int | None = None, within: int | None = None
) -> NemoRun:
    """Runs the whole utterance, f32 [samples], in one forward pass, with `lookahead`'s attention mask if there is one.

    slot: the prompt's, for a model with a prompt; within: as for `stream`.
    """
    import torch

    if lookahead is not None:
        _set_context(model, lookahead, within)
    prompt = {} if slot is None else {"prompt_indices": torch.tensor([slot])}
    audio = {"input_signal": torch.from_numpy(samples)[None], "input_signal_length": torch.tensor([len(samples)])}
    if _is_ctc(model):  # whose forward gives the decoder's scores; its encoder's part, as there
        mel, mel_length = model.preprocessor(input_signal=audio["input_signal"], length=audio["input_signal_length"])
        encoded, encoded_length = model.encoder(audio_signal=mel, length=mel_length)
    else:
        encoded, encoded_length = model.forward(**audio, **prompt)
    frames = encoded[0, :, : int(encoded_length[0])].T
    if _is_ctc(model):
        return _ctc_result(model, [_labels(model, encoded)[0, : len(frames)]], [frames])
    hypothesis = model.decoding.rnnt_decoder_predictions_tensor(
        encoder_output=encoded, encoded_lengths=encoded_length, return_hypotheses=True
    )[0]
    return _result(model, hypothesis, [frames])


def _set_context(model: Any, lookahead: int, within: int | None) -> None:
    left = model.encoder.att_context_size_all[0][0]
    model.encoder.set_default_att_context_size([left, lookahead if within is None else within])
    if within is not None:
        chunk = lookahead + 1
        model.encoder.setup_streaming_params(chunk_size=chunk, shift_size=chunk, left_chunks=left // chunk)


@dataclass
class _Stream:
    """One utterance between two steps."""

    windows: list[tuple[Any, Any, bool]]  # mel f32 [1, n_mels, T], its length i64 [1], whether it is the last
    caches: Any  # layer first, as NeMo keeps them
    language: str | None = None
    hypothesis: Any = None
    labels: list = field(default_factory=list)  # of a CTC model: the best of tokens and blank on each frame, i64 [T] a chunk
    frames: list = field(default_factory=list)


def _windows(model: Any, samples: np.ndarray) -> list[tuple[Any, Any, bool]]:
    from nemo.collections.asr.parts.utils.streaming_utils import CacheAwareStreamingAudioBuffer

    buffer = CacheAwareStreamingAudioBuffer(model, online_normalization=False, pad_and_drop_preencoded=False)
    buffer.append_audio(samples)
    return [(mel, length, buffer.is_buffer_empty()) for mel, length in buffer]


def _step(model: Any, members: list[_Stream], step: int, last: bool, drop: int) -> None:
    """Calls `cache_aware_stream_step` and the greedy decoder once, as NeMo's `conformer_stream_step` does."""
    import torch

    channel, time, length = (
        torch.cat(parts, dim) for parts, dim in zip(zip(*(m.caches for m in members), strict=True), (1, 1, 0), strict=True)
    )
    encoded, encoded_length, channel, time, length = model.encoder.cache_aware_stream_step(
        processed_signal=torch.cat([m.windows[step][0] for m in members]),
        processed_signal_length=torch.cat([m.windows[step][1] for m in members]),
        cache_last_channel=channel,
        cache_last_time=time,
        cache_last_channel_len=length,
        keep_all_outputs=last,
        drop_extra_pre_encoded=drop,
    )
    encoded = model._apply_prompt_to_encoded(encoded)  # NeMo's own hook; does nothing in a model without a prompt
    ctc = _is_ctc(model)
    decoded = _labels(model, encoded) if ctc else _hypotheses(model, members if step else [], encoded, encoded_length)
    for row, member in enumerate(members):
        one, count = slice(row, row + 1), int(encoded_length[row])
        member.caches = (channel[:, one], time[:, one], length[one])
        if ctc:
            member.labels.append(decoded[row, :count])
        else:
            member.hypothesis = decoded[row]
        member.frames.append(encoded[row, :, :count].T)


def _hypotheses(model: Any, partial: list[_Stream], encoded: Any, encoded_length: Any) -> Any:
    """NeMo's transducer hypotheses, which go on from those of `partial`, if there are any."""
    return model.decoding.rnnt_decoder_predictions_tensor(
        encoder_output=encoded,
        encoded_lengths=encoded_length,
        return_hypotheses=True,
        partial_hypotheses=[stream.hypothesis for stream in partial] or None,
    )


def _is_ctc(model: Any) -> bool:
    from nemo.collections.asr.models import EncDecCTCModel

    return isinstance(model, EncDecCTCModel)


def _labels(model: Any, encoded: Any) -> Any:
    """The best of tokens and blank on each frame: i64 [B, T]. As in NeMo's `conformer_stream_step`."""
    return model.decoder(encoder_output=encoded).argmax(dim=-1)


def _ctc_result(model: Any, labels: list, frames: list) -> NemoRun:
    """Lets NeMo collapse the labels of all chunks together, as its `conformer_stream_step` does after each chunk.

    With `compute_timestamps` NeMo's decoder keeps the collapsed tokens, and how many frames each begins behind the one before.
    """
    import torch

    if not labels:
        return _result(model, None, frames)
    joined = torch.cat(labels)
    model.decoding.compute_timestamps = True
    found = model.decoding.decoding(decoder_output=joined[None], decoder_lengths=torch.tensor([len(joined)]))[0]
    tokens, steps, _ = model.decoding.decode_hypothesis(found, fold_consecutive=True)[0].text
    return _run(model, tokens, np.cumsum(steps).tolist(), frames)


def _result(model: Any, hypothesis: Any, frames: list) -> NemoRun:
    width = model.cfg.encoder.d_model
    if hypothesis is None:  # shorter than NeMo's buffer needs for one step
        return NemoRun((), (), "", np.zeros((0, width), np.float32))
    return _run(model, hypothesis.y_sequence, hypothesis.timestamp, frames)


def _run(model: Any, tokens: Sequence, token_frames: Sequence, frames: list) -> NemoRun:
    ids, stamps = tuple(int(token) for token in tokens), tuple(int(frame) for frame in token_frames)
    text = model.tokenizer.ids_to_text(list(ids)) if ids else ""
    return NemoRun(ids, stamps, text, np.concatenate([f.numpy() for f in frames]).astype(np.float32))
