"""Runs a restored checkpoint in NeMo itself: cache-aware streaming, and offline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nemoport.events import EventSpec


@dataclass(frozen=True)
class NemoRun:
    """NeMo's run of one utterance. frames: f32 [T', d_model]; token_frames: encoder frame of each token; text: by NeMo's
    tokenizer; of a model with events of each part between them, with a space between."""

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
    events: EventSpec | None = None,
) -> list[NemoRun]:
    """Runs cache-aware streaming over several utterances, each f32 [samples], at one lookahead.

    languages: the prompt of each utterance, by names of the dictionary of a model with a prompt. within: how many frames the
    attention looks ahead, where that is less than the chunk. events: of a model that has them; NeMo's own loop never resets the
    decoder behind one, so `_decode` does, where `events.resets` is true.

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
            _step(model, members, step, last, drop if step else 0, events)
    if _is_ctc(model):
        return [_ctc_result(model, s.labels, s.frames, events) for s in streams]
    return [run_of(model, *s.decoded.found(), s.frames, events) for s in streams]


def offline(
    model: Any,
    samples: np.ndarray,
    lookahead: int | None,
    slot: int | None = None,
    within: int | None = None,
    events: EventSpec | None = None,
) -> NemoRun:
    """Runs the whole utterance, f32 [samples], in one forward pass, with `lookahead`'s attention mask if there is one.

    slot: the prompt's, for a model with a prompt; within, events: as for `stream`.
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
        return _ctc_result(model, [_labels(model, encoded)[0, : len(frames)]], [frames], events)
    decoded = _Decoded()
    _decode(model, encoded, encoded_length, [decoded], events)
    return run_of(model, *decoded.found(), [frames], events)


def _set_context(model: Any, lookahead: int, within: int | None) -> None:
    left = model.encoder.att_context_size_all[0][0]
    model.encoder.set_default_att_context_size([left, lookahead if within is None else within])
    if within is not None:
        chunk = lookahead + 1
        model.encoder.setup_streaming_params(chunk_size=chunk, shift_size=chunk, left_chunks=left // chunk)


@dataclass
class _Decoded:
    """What a transducer found in one utterance. hypothesis: NeMo's since the last reset; start: the frame at which that began;
    tokens, token_frames: before it; n_frames: decoded so far."""

    hypothesis: Any = None
    start: int = 0
    tokens: list[int] = field(default_factory=list)
    token_frames: list[int] = field(default_factory=list)
    n_frames: int = 0

    def found(self) -> tuple[list[int], list[int]]:
        """Returns all tokens and their frames."""
        if self.hypothesis is None:
            return self.tokens, self.token_frames
        frames = [self.start + int(frame) for frame in self.hypothesis.timestamp]
        return self.tokens + [int(token) for token in self.hypothesis.y_sequence], self.token_frames + frames


@dataclass
class _Stream:
    """One utterance between two steps."""

    windows: list[tuple[Any, Any, bool]]  # mel f32 [1, n_mels, T], its length i64 [1], whether it is the last
    caches: Any  # layer first, as NeMo keeps them
    language: str | None = None
    decoded: _Decoded = field(default_factory=_Decoded)
    labels: list = field(default_factory=list)  # of a CTC model: the best of tokens and blank on each frame, i64 [T] a chunk
    frames: list = field(default_factory=list)


def _windows(model: Any, samples: np.ndarray) -> list[tuple[Any, Any, bool]]:
    from nemo.collections.asr.parts.utils.streaming_utils import CacheAwareStreamingAudioBuffer

    buffer = CacheAwareStreamingAudioBuffer(model, online_normalization=False, pad_and_drop_preencoded=False)
    buffer.append_audio(samples)
    return [(mel, length, buffer.is_buffer_empty()) for mel, length in buffer]


def _step(model: Any, members: list[_Stream], step: int, last: bool, drop: int, events: EventSpec | None) -> None:
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
    labels = _labels(model, encoded) if _is_ctc(model) else None
    if labels is None:
        _decode(model, encoded, encoded_length, [member.decoded for member in members], events)
    for row, member in enumerate(members):
        one, count = slice(row, row + 1), int(encoded_length[row])
        member.caches = (channel[:, one], time[:, one], length[one])
        if labels is not None:
            member.labels.append(labels[row, :count])
        member.frames.append(encoded[row, :, :count].T)


def _decode(model: Any, encoded: Any, lengths: Any, decoded: list[_Decoded], events: EventSpec | None) -> None:
    """Calls NeMo's greedy transducer decoder on the next frames, f32 [B, d_model, T], lengths i64 [B], and advances `decoded`.

    Where a new token resets, what NeMo decoded behind its frame is discarded, and a new hypothesis is decoded from the next frame
    on: tokens up to the reset do not depend on what follows.
    """
    before = [one.hypothesis for one in decoded]
    known = [0 if one is None else len(one.y_sequence) for one in before]
    hypotheses = model.decoding.rnnt_decoder_predictions_tensor(
        encoder_output=encoded,
        encoded_lengths=lengths,
        return_hypotheses=True,
        partial_hypotheses=None if all(one is None for one in before) else before,
    )
    resetting = set(events.kinds) if events and events.resets else set()
    for row, one in enumerate(decoded):
        one.hypothesis = hypotheses[row]
        new = [int(token) for token in one.hypothesis.y_sequence[known[row] :]]
        at = next((i for i, token in enumerate(new) if token in resetting), None)
        if at is None:
            one.n_frames += int(lengths[row])
            continue
        tokens, frames = one.found()
        kept = len(tokens) - len(new) + at + 1
        done = frames[kept - 1] + 1 - one.n_frames
        start = one.n_frames + done
        one.hypothesis, one.tokens, one.token_frames, one.start, one.n_frames = None, tokens[:kept], frames[:kept], start, start
        if rest := int(lengths[row]) - done:
            _decode(model, encoded[row : row + 1, :, done:], lengths.new_tensor([rest]), [one], events)


def _is_ctc(model: Any) -> bool:
    from nemo.collections.asr.models import EncDecCTCModel

    return isinstance(model, EncDecCTCModel)


def _labels(model: Any, encoded: Any) -> Any:
    """The best of tokens and blank on each frame: i64 [B, T]. As in NeMo's `conformer_stream_step`."""
    return model.decoder(encoder_output=encoded).argmax(dim=-1)


def _ctc_result(model: Any, labels: list, frames: list, events: EventSpec | None) -> NemoRun:
    """Lets NeMo collapse the labels of all chunks together, as its `conformer_stream_step` does after each chunk.

    With `compute_timestamps` NeMo's decoder keeps the collapsed tokens, and how many frames each begins behind the one before.
    """
    import torch

    if not labels:
        return run_of(model, [], [], frames, events)
    joined = torch.cat(labels)
    model.decoding.compute_timestamps = True
    found = model.decoding.decoding(decoder_output=joined[None], decoder_lengths=torch.tensor([len(joined)]))[0]
    tokens, steps, _ = model.decoding.decode_hypothesis(found, fold_consecutive=True)[0].text
    return run_of(model, [int(token) for token in tokens], np.cumsum(steps).tolist(), frames, events)


def run_of(model: Any, tokens: list[int], token_frames: list[int], frames: list, events: EventSpec | None = None) -> NemoRun:
    """Returns the run of what NeMo decoded. frames: tensors [T', d_model], in order."""
    none = np.zeros((0, model.cfg.encoder.d_model), np.float32)  # of audio shorter than NeMo's buffer needs for one step
    every = np.concatenate([none, *(f.numpy() for f in frames)]).astype(np.float32)
    text = _text(model, tokens, set(events.kinds) if events else set())
    return NemoRun(tuple(tokens), tuple(int(frame) for frame in token_frames), text, every)


def _text(model: Any, tokens: list[int], events: set[int]) -> str:
    text, part = "", []
    for token in [*tokens, None]:
        if token is not None and token not in events:
            part.append(token)
        elif part:
            spelled = model.tokenizer.ids_to_text(part)
            text += (" " if text and spelled and not spelled.startswith(" ") else "") + spelled
            part = []
    return text
