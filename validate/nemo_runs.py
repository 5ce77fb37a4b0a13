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
    encoded, encoded_length = model.forward(
        input_signal=torch.from_numpy(samples)[None], input_signal_length=torch.tensor([len(samples)]), **prompt
    )
    hypothesis = model.decoding.rnnt_decoder_predictions_tensor(
        encoder_output=encoded, encoded_lengths=encoded_length, return_hypotheses=True
    )[0]
    return _result(model, hypothesis, [encoded[0, :, : int(encoded_length[0])].T])


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
    hypotheses = model.decoding.rnnt_decoder_predictions_tensor(
        encoder_output=encoded,
        encoded_lengths=encoded_length,
        return_hypotheses=True,
        partial_hypotheses=[m.hypothesis for m in members] if step else None,
    )
    for row, member in enumerate(members):
        one = slice(row, row + 1)
        member.caches = (channel[:, one], time[:, one], length[one])
        member.hypothesis = hypotheses[row]
        member.frames.append(encoded[row, :, : int(encoded_length[row])].T)


def _result(model: Any, hypothesis: Any, frames: list) -> NemoRun:
    width = model.cfg.encoder.d_model
    if hypothesis is None:  # shorter than NeMo's buffer needs for one step
        return NemoRun((), (), "", np.zeros((0, width), np.float32))
    tokens = tuple(int(t) for t in hypothesis.y_sequence)
    stamps = tuple(int(t) for t in hypothesis.timestamp)
    text = model.tokenizer.ids_to_text(list(tokens)) if tokens else ""
    return NemoRun(tokens, stamps, text, np.concatenate([f.numpy() for f in frames]).astype(np.float32))
