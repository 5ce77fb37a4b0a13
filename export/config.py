"""config.json: all that a runtime needs of a checkpoint, machine-readable, one file for every variant."""

from __future__ import annotations

from nemoport.buffered import ATT_CONTEXT, BufferedSpec
from nemoport.caches import PROMPT, Caches, NemoCaches
from nemoport.caches_kv import KvCaches
from nemoport.events import EventSpec
from nemoport.export.checkpoint import Checkpoint
from nemoport.export.containers.container import NEMO
from nemoport.prompt import AUTO, PromptSpec
from nemoport.spec import CTC, DecodingSpec, ModelSpec, StreamingSpec
from nemoport.tokens import tag_tokens

DURATION_RULE = (
    "behind the scores of tokens and blank stand those of the durations: take the best of each, and go on by the duration; "
    "at blank by at least 1; after max_symbols_per_frame tokens without going on, by 1"
)
CTC_RULE = (
    "take the best of tokens and blank on each frame of `logprobs`; emit it unless it is blank or the best of the frame before, "
    "also across two chunks"
)

RESET_RULE = (
    "behind one, set the decoder back (states of zeros, first_target as the next target) and go on with the next encoder frame; "
    "the encoder's caches go on. Without it the model may stay silent for the rest of the stream"
)


def runtime_config(checkpoint: Checkpoint) -> dict:
    """The contents of config.json: the spec under `spec`, and what follows from it for consumers that do not compute it."""
    spec = checkpoint.spec
    decoding, frontend = spec.decoding, spec.frontend
    return {
        "spec": spec.to_dict(),
        "base_model": checkpoint.base_model,
        "checkpoint": {"name": checkpoint.name, "sha256": checkpoint.sha256, **_format(checkpoint)},
        "sample_rate": frontend.sample_rate_hz,
        "frame_seconds": spec.frame_seconds,
        "encoder": _streaming(spec, spec.streaming) if spec.streaming else _offline(spec),
        **({"prompt": _prompt(checkpoint, spec.prompt)} if spec.prompt else {}),
        **({"events": _events(spec.events)} if spec.events else {}),
        **({"ctc": _ctc(decoding)} if spec.head == CTC else {"decoder": _transducer(decoding)}),
        "onnxruntime": {
            "minimum_version": "1.19",
            "session_config": {"session.force_spinning_stop": "1"},
            "session_config_rule": "for live streams: no thread spins between two chunks",
        },
    }


def _ctc(decoding: DecodingSpec) -> dict:
    return {"blank_id": decoding.blank_id, "vocab_size": decoding.vocab_size + 1, "rule": CTC_RULE}


def _transducer(decoding: DecodingSpec) -> dict:
    return {
        "blank_id": decoding.blank_id,
        "vocab_size": decoding.vocab_size + 1,
        "first_target": decoding.blank_id,
        "state_shape": list(decoding.state_shape(1)),
        "state_initial_value": 0,
        "max_symbols_per_frame": decoding.max_symbols_per_frame,
        **({"durations": list(decoding.durations), "duration_rule": DURATION_RULE} if decoding.durations else {}),
        "state_rule": "keep the states of the call that emitted a token; discard those of a call that gave blank",
    }


def _format(checkpoint: Checkpoint) -> dict:
    return {} if checkpoint.container.format == NEMO else {"format": checkpoint.container.format}


def _streaming(spec: ModelSpec, streaming: StreamingSpec) -> dict:
    chunks = {
        str(r): {
            "latency_ms": streaming.chunk_ms(r, spec.frontend),
            "first_window_mel_frames": streaming.window_mel_frames(r, first=True),
            "window_mel_frames": streaming.window_mel_frames(r, first=False),
            "new_mel_frames": streaming.chunk_mel_frames(r, first=False),
            "encoder_frames": r + 1,
        }
        for r in streaming.lookaheads
    }
    return {
        "cache_shapes": cache_shapes(streaming, NemoCaches),
        "cache_initial_value": 0,
        "cache_rule": (
            "feed each *_next output back as the next window's input, to the variant that gave it: what a cache "
            "holds is scaled in the smoothed variants"
        ),
        "kv_cache_shapes": cache_shapes(streaming, KvCaches),
        "kv_cache_rule": (
            "the variants kv-* take for each layer cache_key, cache_value and cache_conv (frames and streams first) "
            "and give key_new, value_new and conv_new, the frames of this window: put them behind the cache and feed "
            "the last frames of both next time, as many as the shape says. cache_len counts the frames given so far, "
            "at most those of cache_key. All else is as for the other variants"
        ),
        "pre_encode_cache_mel_frames": streaming.pre_encode_cache_mel_frames,
        "chunks_by_lookahead": chunks,
        **_within(streaming),
        "default_lookahead": default_lookahead(spec),
        "first_chunk_rule": (
            "feed first_window_mel_frames frames with nothing before them; the graph drops nothing. Nine zero "
            "frames before a window of window_mel_frames also work, as NeMo's pad_and_drop_preencoded, but give "
            "slightly other frames. An utterance shorter than the first window is zero-padded to it, with `length` "
            "the valid frames"
        ),
        "next_chunk_rule": (
            "the last pre_encode_cache_mel_frames frames before the new ones (zeros in front where fewer came), "
            "then new_mel_frames new ones; `length` counts both"
        ),
        "last_chunk_rule": (
            "zero-pad the rest to a full window (or feed it short) with `length` the valid frames, cache included; "
            "use only the first encoded_lengths frames of `outputs`"
        ),
        "flush_rule": (
            "an utterance of n samples has floor(n / hop_length) mel frames; encode all of them. NeMo's own "
            "streaming buffer appends one zero frame and drops a rest of fewer than 8 frames"
        ),
    }


def _prompt(checkpoint: Checkpoint, prompt: PromptSpec) -> dict:
    languages = prompt.languages
    return {
        "input": PROMPT,
        "slots": prompt.slots,
        "languages": languages,
        **({"auto": languages[AUTO]} if AUTO in languages else {}),
        "language_tags": tag_tokens(checkpoint.tokens),
        "rule": (
            "feed prompt_index i64 [batch], the slot of each stream's language, with every window: there is no default. "
            "Streams of one batch may have different ones, and a stream another from one window to the next. `auto` lets "
            "the model find out"
        ),
        "tag_rule": (
            "the model writes the language at the end of a sentence as a tag such as <de-DE>: it is a result of its own and "
            "no part of the text. Take away what matches \\s*<[a-z]{2}-[A-Z]{2}>, as NeMo does"
        ),
    }


def _events(events: EventSpec) -> dict:
    return {
        "tokens": {kind: token for token, kind in events.kinds.items()},
        "rule": (
            "these tokens mark the end of an utterance, or of a backchannel such as `mhm`: events of the stream, at the frame on "
            "which they are emitted, and no part of the text. A space stands between the texts before and behind one"
        ),
        **({"reset_rule": RESET_RULE} if events.resets else {}),
    }


def _offline(spec: ModelSpec) -> dict:
    return {
        "normalize": spec.frontend.normalize,
        "input_rule": (
            "the log-mel of a whole recording, normalised over it, zero-padded behind "
            "`length` in a batch; use only the first encoded_lengths frames of `outputs`"
        ),
        "subsampling_factor": spec.require_offline().subsampling_factor,
        **({"buffered": _buffered(spec, spec.buffered)} if spec.buffered else {}),
    }


def _buffered(spec: ModelSpec, buffered: BufferedSpec) -> dict:
    return {
        "input": ATT_CONTEXT,
        "left_frames": list(buffered.lefts),
        "chunk_frames": list(buffered.chunks),
        "right_frames": list(buffered.rights),
        "default": list(buffered.context()),
        "frame_samples": spec.frontend.hop_samples * spec.encoder.subsampling_factor,
        "rule": (
            "feed att_context_size i64 [3] = left, chunk and right frames with each window; without it the graph has full "
            "context, for whole recordings. A window is audio: up to `left` frames before the chunk, as many as there are (no "
            "padding), the chunk, and `right` frames behind it; its log-mel is computed and normalised from its samples alone. "
            "Decode the chunk's frames of `outputs` and keep the decoder's state. The first window needs chunk + right frames of "
            "audio, each later one a chunk more. The last window ends with the recording and has at most left + chunk + right "
            "frames; decode all its frames from floor(left samples / frame_samples) on. Latency: chunk + right frames"
        ),
    }


def cache_shapes(spec: StreamingSpec, caches: type[Caches]) -> dict[str, list[int]]:
    """Input name -> shape of the caches of one stream, in a cache layout."""
    return {name: list(shape) for name, shape in caches.shapes(spec, 1).items()}


def _within(streaming: StreamingSpec) -> dict:
    if streaming.attention_lookahead is None:
        return {}
    rule = (
        "a chunk is several of this lookahead's, run at once: the attention looks ahead within it no further, the key of "
        "chunks_by_lookahead only tells the chunk's length"
    )
    return {"attention_lookahead": streaming.attention_lookahead, "attention_rule": rule}


def default_lookahead(spec: ModelSpec) -> int:
    """The lookahead of the published packages, in encoder frames: 6 (560 ms) where the checkpoint was trained for it, else the
    largest; of a model with a prompt the checkpoint's own default, which is its first. Raises UsageError for an offline model."""
    lookaheads = spec.require_streaming().lookaheads
    if spec.prompt:
        return lookaheads[0]
    return 6 if 6 in lookaheads else max(lookaheads)
