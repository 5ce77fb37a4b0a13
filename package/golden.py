"""An exported encoder against recorded features and frames of the checkpoint itself, run by NeMo elsewhere: golden data.

Two forms of .npz files, as onnxruntime/mobius keeps them of nvidia/nemotron-speech-streaming-en-0.6b:

offline   feats f32 [1, n_mels, T], enc_out f32 [1, d_model, T']; with a decoder tokens i64 [1, U] and joint_out f32
          [1, T', U + 1, scores], whose first target is blank
stream    f0, f1, ... f32 [1, n_mels, T]: later windows, each with its mel cache in front, from empty caches on; out0, out1, ...
          f32 [1, d_model, T']; len0, ... and cl1, ..., i64 [1]: valid frames, and frames in the cache behind each

Both may hold meta, a JSON text (model_id, revision, nemo_version), and prompt_index i64 [1] of a model with a prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nemoport.chunker import Chunk, Chunker
from nemoport.errors import ArtifactError, UsageError
from nemoport.package.opening import Opened
from nemoport.runtimes.onnxruntime.merged import MergedSession
from nemoport.session import EncoderState, Session
from nemoport.spec import Lookahead
from nemoport.validate.limits import Limits

OTHER_FILE = "name a file that was recorded of this model, or the model that it was recorded of"
COUNTS = ("len", "cl")  # arrays of counts of frames, by their names
NORMALISED = 1e-3  # the logarithm of the sum of scores that NeMo's log_softmax leaves, in float32


@dataclass(frozen=True)
class Held:
    """One array, compared. largest: absolute difference; ratio: root mean square of the error, relative to that of the recorded
    values; NaN where values are no numbers. limits: of both; 0 of counts."""

    name: str
    largest: float
    ratio: float
    limits: tuple[float, float]

    @property
    def passed(self) -> bool:
        return self.largest <= self.limits[0] and self.ratio <= self.limits[1]

    @property
    def decibels(self) -> float:
        """Signal to noise."""
        return float("inf") if self.ratio == 0 else -20 * float(np.log10(self.ratio))

    @property
    def counts(self) -> bool:
        """Whether it is of counts of frames."""
        return self.name.startswith(COUNTS)

    def line(self) -> str:
        if self.counts:
            return f"{self.name}: {'as recorded' if self.passed else f'DIFFERS by {self.largest:g} frames'}"
        return (
            f"{self.name}: largest difference {self.largest:.2e} (limit {self.limits[0]:g}), rms {self.ratio:.2e} of the "
            f"recorded (limit {self.limits[1]:g}), {self.decibels:.1f} dB: {'within' if self.passed else 'DIFFERS'}"
        )


def hold(opened: Opened, arrays: Mapping[str, np.ndarray], limits: Limits) -> list[Held]:
    """Runs a variant on recorded features and compares what comes out. limits: of the variant; those of its gate `numeric` count.

    Raises ArtifactError for arrays that are missing or of other shapes than the model's, UsageError for a variant that cannot be
    held to such a file.
    """
    bounds = (limits.get("numeric", "max_abs"), limits.get("numeric", "max_rms_ratio"))
    if isinstance(opened.session, MergedSession):
        what = f"{opened.place} holds encoder and decoder in one graph, which gives no frames."
        raise UsageError(what, expected="an encoder's frames", found="scores", todo="hold the build, or its native package")
    form = _offline if "feats" in arrays else _stream if "f0" in arrays else None
    if form is None:
        raise _wrong("no known arrays", "feats and enc_out, or f0 and out0", ", ".join(sorted(arrays)) or "none")
    return [
        Held(name, *_differences(own, recorded), (0.0, 0.0) if name.startswith(COUNTS) else bounds)
        for name, own, recorded in form(opened, arrays)
    ]


Pairs = Iterator[tuple[str, np.ndarray, np.ndarray]]  # name, own, recorded


def _offline(opened: Opened, arrays: Mapping[str, np.ndarray]) -> Pairs:
    session, spec = opened.session, opened.session.spec
    mel = _array(arrays, "feats", (1, spec.frontend.n_mels, None))[0]
    lookahead = spec.lookaheads[0]  # which NeMo takes where none is set
    if lookahead not in opened.lookaheads or (spec.streaming and not opened.first_windows):
        raise UsageError(
            f"{opened.place} cannot be held to an offline run.",
            expected=f"graphs that know the first window of a stream, with lookahead {lookahead}, NeMo's default",
            found=f"lookaheads {', '.join(map(str, opened.lookaheads))}"
            if opened.first_windows
            else "graphs that take each window for a later one",
            todo="hold it to the file of windows (f0, f1, ...), or hold the build or its native package",
        )
    state, frames = _state(session, arrays), []
    for chunk in _chunks(opened, mel, lookahead):
        found, counts, state = session.encode(chunk.mel[None], np.array([chunk.length], np.int64), state)
        frames.append(found[:, : counts[0]])
        state = _next(session, state)
    own = np.concatenate(frames, 1).transpose(0, 2, 1)
    yield "enc_out", own, _array(arrays, "enc_out", own.shape)
    if "joint_out" in arrays:
        yield from _joint(session, arrays)


def _chunks(opened: Opened, mel: np.ndarray, lookahead: Lookahead) -> list[Chunk]:
    spec = opened.session.spec
    if spec.streaming is None:
        return [Chunk(mel, mel.shape[1], True)]
    chunker = Chunker(spec.streaming, spec.frontend.n_mels, lookahead)
    return [*chunker.feed(mel), *chunker.finish()]


def _joint(session: Session, arrays: Mapping[str, np.ndarray]) -> Pairs:
    """Compares the scores of each recorded frame behind each prefix of the recorded tokens: prediction network and joint, of the
    recorded frames, so that the encoder's error does not count twice."""
    decoding = session.spec.decoding
    tokens = _array(arrays, "tokens", (1, None), np.integer)[0]
    frames = _array(arrays, "enc_out", (1, session.spec.encoder.d_model, None)).transpose(0, 2, 1)
    recorded = _array(arrays, "joint_out", (1, frames.shape[1], len(tokens) + 1, decoding.n_scores))
    if not ((tokens >= 0) & (tokens < decoding.blank_id)).all():
        raise _wrong("tokens that the model does not have", f"ids below {decoding.blank_id}", str(tokens.tolist()))
    zeros = np.zeros(decoding.state_shape(1), np.float32)
    state, own = (zeros, zeros), []
    for token in (decoding.blank_id, *tokens):
        scores, state = session.step(frames, np.array([token], np.int32), state)
        own.append(scores)
    scores = np.stack(own, 2)
    # NeMo's joint normalises on a CPU alone; an exported one never does.
    if np.abs(_log_sum(recorded)).max() < NORMALISED:
        scores = scores - _log_sum(scores)
    yield "joint_out", scores, recorded


def _log_sum(scores: np.ndarray) -> np.ndarray:
    most = scores.max(-1, keepdims=True)
    return most + np.log(np.exp(scores - most).sum(-1, keepdims=True))


def _stream(opened: Opened, arrays: Mapping[str, np.ndarray]) -> Pairs:
    session, spec = opened.session, opened.session.spec
    streaming = spec.require_streaming()
    state = _state(session, arrays)
    for number in range(sum(name[:1] == "f" and name[1:].isdigit() for name in arrays)):
        mel = _array(arrays, f"f{number}", (1, spec.frontend.n_mels, None))
        recorded = _array(arrays, f"out{number}", (1, streaming.d_model, None))
        lookahead = recorded.shape[2] - 1
        size = streaming.window_mel_frames(lookahead, first=False)
        # A window that is shorter than the lookahead's, by less than a frame, is padded to it: `length` counts what is valid.
        if lookahead not in opened.lookaheads or not size - streaming.subsampling_factor < mel.shape[2] <= size:
            raise _wrong(
                f"windows that {opened.place} does not take",
                "; ".join(
                    f"{one + 1} frames of {streaming.window_mel_frames(one, first=False)} mel frames"
                    for one in opened.lookaheads
                    if isinstance(one, int)
                ),
                f"out{number} of {recorded.shape[2]} frames, f{number} of {mel.shape[2]} mel frames",
            )
        padded = np.pad(mel, ((0, 0), (0, 0), (0, size - mel.shape[2])))
        own, counts, state = session.encode(padded, np.array([mel.shape[2]], np.int64), state)
        yield f"out{number}", own.transpose(0, 2, 1), _array(arrays, f"out{number}", own.transpose(0, 2, 1).shape)
        for name, value in ((f"len{number}", counts), (f"cl{number + 1}", getattr(state, "length", None))):
            if name in arrays and value is not None:
                yield name, value.astype(np.float32), _array(arrays, name, (1,), np.integer).astype(np.float32)
        state = _next(session, state)


def _state(session: Session, arrays: Mapping[str, np.ndarray]) -> EncoderState:
    prompts = _array(arrays, "prompt_index", (1,), np.integer).tolist() if session.spec.prompt else []
    return session.initial_state(1, prompts)


def _next(session: Session, state: EncoderState) -> EncoderState:
    return session.stack(list(session.unstack(state)))


def _array(
    arrays: Mapping[str, np.ndarray], name: str, shape: Sequence[int | None], kind: type[np.generic] = np.floating
) -> np.ndarray:
    """Returns an array of a shape, whose None is any size but 0, as float32 where it is of floats."""
    found = arrays.get(name)
    wanted = f"{name} {[size or 'any' for size in shape]}"
    if found is None:
        raise _wrong(f"no {name}", wanted, ", ".join(sorted(arrays)))
    fits = len(found.shape) == len(shape) and all(a == b or (b is None and a) for a, b in zip(found.shape, shape, strict=True))
    if not fits or not np.issubdtype(found.dtype, kind):
        raise _wrong(f"{name} of another shape or type", wanted, f"{list(found.shape)} of {found.dtype}")
    return found.astype(np.float32) if kind is np.floating else found


def _differences(own: np.ndarray, recorded: np.ndarray) -> tuple[float, float]:
    error, wanted = own.astype(np.float64) - recorded, float((recorded.astype(np.float64) ** 2).sum())
    return float(np.abs(error).max()), float(np.sqrt((error**2).sum() / wanted)) if wanted else float("nan")


def _wrong(what: str, expected: str, found: str) -> ArtifactError:
    return ArtifactError(f"The golden file has {what}.", expected=expected, found=found, todo=OTHER_FILE)
