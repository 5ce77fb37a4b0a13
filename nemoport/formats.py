"""A transcript as JSON, as subtitles (SRT, WebVTT), and as a table (TSV, as Whisper's)."""

from __future__ import annotations

import html
import json
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest

from nemoport.events import Event
from nemoport.text import has_controls
from nemoport.transcription import Hypothesis
from nemoport.words import Segment, Word, segments_of

# Of a cue: two lines of 42 characters, for seven seconds at most, as broadcasters ask for.
LINE_CHARACTERS, LINES, LONGEST_S, SHORTEST_S = 42, 2, 7.0, 1.0
PAUSE_S = 1.0  # between words, that ends a cue


def as_json(hypothesis: Hypothesis, **more: str) -> str:
    """Returns the fields of a hypothesis as one line of JSON, behind those in `more`. words and segments are objects of text,
    start and end in seconds; words have their confidence; events are objects of kind, time in seconds and confidence."""
    fields = (
        more
        | vars(hypothesis)
        | {
            "token_seconds": _rounded(hypothesis.token_seconds),
            "token_duration_seconds": _rounded(hypothesis.token_duration_seconds),
            "token_confidences": _rounded(hypothesis.token_confidences),
            "words": word_fields(hypothesis.words),
            "segments": [segment_fields(segment) for segment in hypothesis.segments],
            "events": [event_fields(event) for event in hypothesis.events],
        }
    )
    return json.dumps(fields, ensure_ascii=any(map(has_controls, (hypothesis.id, hypothesis.text)))) + "\n"


def segment_as_json(segment: Segment, **more: str) -> str:
    """Returns a segment as one line of JSON, behind the fields in `more`: text, start, end, words as `as_json` has them, and the
    event that ended it, null where none did."""
    event = event_fields(segment.event) if segment.event else None
    fields = more | segment_fields(segment) | {"words": word_fields(segment.words), "event": event}
    return json.dumps(fields, ensure_ascii=has_controls(segment.text)) + "\n"


def as_srt(hypothesis: Hypothesis) -> str:
    """Returns SubRip subtitles."""
    blocks = (
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{_lines(cue.text)}\n"
        for number, cue in enumerate(cues(hypothesis.words), 1)
    )
    return "\n".join(blocks)


def as_vtt(hypothesis: Hypothesis) -> str:
    """Returns WebVTT subtitles."""
    blocks = (
        f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{html.escape(_lines(cue.text), quote=False)}\n"
        for cue in cues(hypothesis.words)
    )
    return "\n".join(["WEBVTT\n", *blocks])


def as_tsv(hypothesis: Hypothesis) -> str:
    """Returns a line for each sentence, or part between two pauses or events: start and end in milliseconds, and the text."""
    rows = (
        f"{round(s.start * 1000)}\t{round(s.end * 1000)}\t{s.text.replace(chr(9), ' ')}\n"
        for s in segments_of(hypothesis.words, PAUSE_S)
    )
    return "start\tend\ttext\n" + "".join(rows)


FORMATS: dict[str, Callable[[Hypothesis], str]] = {"json": as_json, "srt": as_srt, "vtt": as_vtt, "tsv": as_tsv}


def cues(words: Sequence[Word]) -> list[Segment]:
    """Divides words into subtitles: at sentences, pauses and events, and where a cue would be too long. One is shown for a second
    at least, unless the next one begins before."""
    divided = [Segment(part) for segment in segments_of(words, PAUSE_S) for part in _divided(segment.words)]
    shown = []
    for cue, following in zip_longest(divided, divided[1:]):
        end = max(cue.end, cue.start + SHORTEST_S)
        if following:
            end = max(cue.start, min(end, following.start))
        shown.append(Segment((*cue.words[:-1], replace(cue.words[-1], end=end))))
    return shown


def _divided(words: Sequence[Word]) -> Iterator[tuple[Word, ...]]:
    part: list[Word] = []
    for word in words:
        full = _lines(Segment((*part, word)).text).count("\n") >= LINES
        if part and (full or word.end - part[0].start > LONGEST_S):
            yield tuple(part)
            part = []
        part.append(word)
    yield tuple(part)


def event_fields(event: Event) -> dict[str, str | float]:
    """Returns the fields of an event in JSON."""
    time, confidence = _rounded((event.time, event.confidence))
    return {"kind": event.kind, "time": time, "confidence": confidence}


def segment_fields(segment: Segment) -> dict[str, str | float]:
    """Returns text, start and end of a segment in JSON."""
    start, end = _rounded((segment.start, segment.end))
    return {"text": segment.text, "start": start, "end": end}


def word_fields(words: Sequence[Word]) -> list[dict[str, str | float]]:
    """Returns words in JSON, with start, end and confidence."""
    names = ("start", "end", "confidence")
    return [{"text": w.text} | dict(zip(names, _rounded((w.start, w.end, w.confidence)), strict=True)) for w in words]


def _rounded(values: Sequence[float]) -> list[float]:
    """Returns values without the digits in which 35 frames of 0.08 s are 2.8000000000000003."""
    return [round(value, 6) for value in values]


def _lines(text: str) -> str:
    return textwrap.fill(text, LINE_CHARACTERS, break_on_hyphens=False)


def _clock(seconds: float, point: str) -> str:
    """Returns hours:minutes:seconds and milliseconds."""
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{point}{rest % 1000:03}"
