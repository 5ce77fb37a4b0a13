"""What `Recognizer.transcribe` is given: files, samples, or either with an id and a language."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from glob import glob
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nemoport.audio import checked_samples, open_audio
from nemoport.errors import AudioError, UsageError


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


SUFFIXES = set(
    ".wav .wave .flac .ogg .oga .opus .mp3 .aif .aiff .aifc .au .caf .w64 .rf64 .m4a .m4b .mp4 .mov .mkv .mka .webm .amr .3gp "
    ".aac .wma .wmv .avi .mpg .mpeg .ts .ape .wv .tta".split()
)

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


def audio_files(name: str) -> list[str]:
    """Returns the files that a name stands for, sorted: all with SUFFIXES in a folder and its subfolders, but for hidden ones;
    those that a pattern (*, ?, [...], **) matches, where no file has its name; else the name. Raises AudioError for none."""
    path = Path(name)
    if path.is_dir():
        found = sorted(
            str(file)
            for file in path.rglob("*")
            if file.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in file.relative_to(path).parts)
        )
        expected = f"files with the suffix {' '.join(sorted(SUFFIXES))}"
    elif any(c in name for c in "*?[") and not path.exists():
        found, expected = sorted(file for file in glob(name, recursive=True) if Path(file).is_file()), "files of such names"
    else:
        return [name]
    if not found:
        raise AudioError(f"There is no audio at {name}.", expected=expected, found="none", todo="name the files")
    return found


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
