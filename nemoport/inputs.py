"""What `Recognizer.transcribe` is given: files, samples, or either with an id and a language."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nemoport.audio import checked_samples, open_audio
from nemoport.errors import UsageError


class Source(Protocol):
    """Where the samples of a recording come from, mono, at the model's rate."""

    def read(self, n: int) -> np.ndarray:
        """Returns the next f32 [n]; fewer than n only at the end. Raises AudioError."""
        ...


class Samples:
    """A source of samples that are in memory, f32 [n]."""

    def __init__(self, samples: np.ndarray):
        self._samples, self._at = samples, 0

    def read(self, n: int) -> np.ndarray:
        """Returns the next f32 [n], fewer at the end."""
        start, self._at = self._at, self._at + n
        return self._samples[start : self._at]


Audio = Path | str | np.ndarray | Source
Utterance = Audio | tuple[str, Audio] | tuple[str, Audio, str | None]
Named = tuple[str, Any, str | None]  # id, audio, language


def named(utterances: Iterable[Utterance] | Audio) -> Iterator[Named]:
    """Returns id, audio and language of each utterance. The id of a file is its path, that of samples their place in the list.
    One file or array is taken for a list of it. Raises UsageError, at once for a list."""
    if isinstance(utterances, str | Path | np.ndarray):
        utterances = [utterances]
    if isinstance(utterances, tuple) and utterances and isinstance(utterances[-1], np.ndarray) and isinstance(utterances[0], str):
        raise _unknown("one pair", "put it in a list: [(id, samples)]")
    if not isinstance(utterances, Iterable):
        raise _unknown(type(utterances).__name__)
    each = (_named(place, utterance) for place, utterance in enumerate(utterances))
    return iter(list(each)) if isinstance(utterances, list | tuple) else each


def source_of(audio: Any, sample_rate_hz: int) -> Source:
    """Returns the samples of a path, an array or a source. Raises AudioError."""
    if isinstance(audio, str | Path):
        return open_audio(audio, sample_rate_hz)
    return audio if callable(getattr(audio, "read", None)) else Samples(checked_samples(audio))


def _named(place: int, utterance: Any) -> Named:
    if isinstance(utterance, str | Path):
        return str(utterance), utterance, None
    if isinstance(utterance, np.ndarray) and utterance.ndim:
        return str(place), utterance, None
    if isinstance(utterance, tuple) and len(utterance) in (2, 3):
        name, audio, language = (*utterance, None)[:3]
        if isinstance(name, str) and (language is None or isinstance(language, str)) and not isinstance(audio, int | float):
            return name, audio, language
    found = type(utterance).__name__
    if isinstance(utterance, tuple):
        found = f"({', '.join(type(part).__name__ for part in utterance)})"
    raise _unknown(f"{found} at place {place}")


def _unknown(found: str, todo: str = "pass samples at the model's rate, without it, or a path") -> UsageError:
    expected = "a list of paths, of arrays f32 [n], or of (id, either) or (id, either, language)"
    return UsageError("This cannot be transcribed.", expected=expected, found=found, todo=todo)
