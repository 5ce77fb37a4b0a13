"""Speech in a stream by Silero VAD, and with it live sessions of offline models: each utterance is transcribed as it ends.

Silero VAD (MIT) is a network of 1.3 MB that gives the probability of speech for each 32 ms. Its package asks for torch, which is
not used here: without torch, `pip install --no-deps silero-vad` is enough.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np

from nemoport.audio import checked_samples
from nemoport.errors import UsageError
from nemoport.utterances import EndRule
from nemoport.words import Segment

RATE_HZ, STEP, CONTEXT = 16000, 512, 64  # samples that are scored at once, and those before them that the network sees too
STARTS, ENDS = 0.5, 0.35  # Silero's own: probabilities at which speech starts, and below which it ends
MARGIN_S = 0.3  # transcribed before speech starts, and behind its end
_MODEL = ("silero_vad", "data", "silero_vad_16k_op15.onnx")


class Detector(Protocol):
    """Gives the probability of speech for each STEP samples of a stream."""

    def score(self, samples: np.ndarray) -> float:
        """Takes the next f32 [STEP] and returns the probability of speech in it."""
        ...


class SileroVad:
    """Silero VAD in onnxruntime, for one stream."""

    def __init__(self):
        """Raises UsageError where silero-vad is not installed."""
        import onnxruntime

        found = find_spec(_MODEL[0])
        model = Path(found.origin).parent.joinpath(*_MODEL[1:]) if found and found.origin else None
        if model is None or not model.is_file():
            raise UsageError(
                "Live sessions of an offline model need a detector of speech.",
                expected="an installed silero-vad" if model is None else str(model),
                found="none",
                todo="pip install --no-deps silero-vad",
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # a step takes less than starting a thread
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._state, self._before = np.zeros((2, 1, 128), np.float32), np.zeros(CONTEXT, np.float32)

    def score(self, samples: np.ndarray) -> float:
        """Takes the next f32 [STEP], at 16 kHz, and returns the probability of speech in it."""
        window = np.concatenate([self._before, samples])[None]
        feeds = {"input": window, "state": self._state, "sr": np.array(RATE_HZ, np.int64)}
        probability, self._state = map(np.asarray, self._session.run(None, feeds))
        self._before = samples[-CONTEXT:]
        return float(probability[0, 0])


def silero_vad(sample_rate_hz: int) -> SileroVad:
    """Returns a new detector for a model's audio. Raises UsageError where it cannot be had."""
    if sample_rate_hz != RATE_HZ:
        raise UsageError(
            "Silero VAD cannot take this model's audio.",
            expected=f"{RATE_HZ} Hz",
            found=f"{sample_rate_hz} Hz",
            todo="end utterances by `Stream.flush`",
        )
    return SileroVad()


class SpokenUtterances:
    """A live stream for an offline model: a detector cuts utterances, each of which is transcribed at its end."""

    def __init__(self, transcribe: Callable[[np.ndarray, float], Segment | None], detector: Detector, rule: EndRule):
        """transcribe: is given the samples of an utterance, f32 [n] at 16 kHz, and its start in seconds; detector: a new one;
        rule: an utterance ends after `pause_s` without speech, and is cut at `longest_s`."""
        self._transcribe, self._detector, self._rule = transcribe, detector, rule
        self._held = np.zeros(0, np.float32)  # fed, from the sample `_first` on: an utterance, or the margin before one
        self._first = self._scored = 0  # samples of the stream
        self._speech_end: int | None = None  # of the last speech of the utterance; None outside of one

    @property
    def text(self) -> str:
        """Text of the utterance that has not ended: none, as an offline model transcribes it at its end."""
        return ""

    def feed(self, samples: np.ndarray) -> list[Segment]:
        """Takes samples, f32 [n], mono, at 16 kHz, and returns the utterances that have ended. Raises AudioError."""
        self._held = np.concatenate([self._held, checked_samples(samples)])
        ended: list[Segment] = []
        while self._first + len(self._held) - self._scored >= STEP:
            at = self._scored - self._first
            probability = self._detector.score(self._held[at : at + STEP])
            self._scored += STEP
            ended += self._step(probability)
        return ended

    def finish(self) -> list[Segment]:
        """Ends the audio and returns the last utterance, if one goes on."""
        return self._end(self._first + len(self._held)) if self._speech_end is not None else []

    def _step(self, probability: float) -> list[Segment]:
        margin = round(MARGIN_S * RATE_HZ)
        if probability >= STARTS or (self._speech_end is not None and probability >= ENDS):
            self._speech_end = self._scored
        if self._speech_end is None:
            self._drop(self._scored - margin)
            return []
        if self._scored - self._speech_end >= self._rule.pause_s * RATE_HZ:
            return self._end(min(self._speech_end + margin, self._scored))
        if self._scored - self._first >= self._rule.longest_s * RATE_HZ:
            return self._end(self._scored)
        return []

    def _end(self, end: int) -> list[Segment]:
        found = self._transcribe(self._held[: end - self._first], self._first / RATE_HZ)
        self._drop(end)
        self._speech_end = None
        return [found] if found else []

    def _drop(self, until: int) -> None:
        n = max(0, until - self._first)
        self._held, self._first = self._held[n:], self._first + n
