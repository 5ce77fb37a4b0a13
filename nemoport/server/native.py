"""The protocol of /v1/stream: messages of JSON and binary audio in, events as JSON out. docs/serving.md describes it."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from nemoport.errors import NemoportError, UsageError
from nemoport.formats import event_fields, segment_fields, word_fields
from nemoport.schema import CLOSED, LONGEST_TEXT, real, whole
from nemoport.server.actions import (
    OPUS,
    PCM16,
    Action,
    Audio,
    End,
    Ended,
    Event,
    Flush,
    Flushed,
    Language,
    Opened,
    Start,
    Update,
    Utterance,
)
from nemoport.server.live import check_pcm16
from nemoport.server.opus import packet_samples
from nemoport.text import clipped

MOST_HOTWORDS = 200
Word = Annotated[str, Field(strict=True, min_length=1, max_length=200)]
Label = Annotated[str, Field(strict=True, max_length=300)]


class StartMessage(TypedDict, total=False):
    """The first message, which may be left out. See `Start`."""

    __pydantic_config__ = CLOSED  # type: ignore[misc]  # pydantic reads it

    type: Literal["start"]
    model: Label
    language: Label
    lookahead: Annotated[int, whole(0, 1000)]
    hotwords: Annotated[list[Word], Field(max_length=MOST_HOTWORDS)]
    hotword_boost: Annotated[float, real(0.001, 1000)]
    sample_rate: Annotated[int, whole(1, 1_000_000)]
    format: Literal["pcm16", "opus"]
    pause: Annotated[float, real(0.001, 3600)]
    progress: Annotated[bool, Field(strict=True)]


class LanguageMessage(TypedDict):
    """The language from here on."""

    __pydantic_config__ = CLOSED  # type: ignore[misc]

    type: Literal["language"]
    language: Label


class BareMessage(TypedDict):
    """Flush ends an utterance, end the audio."""

    __pydantic_config__ = CLOSED  # type: ignore[misc]

    type: Literal["flush", "end"]


MESSAGES = {"start": StartMessage, "language": LanguageMessage, "flush": BareMessage, "end": BareMessage}
_ADAPTERS = {name: TypeAdapter(kind) for name, kind in MESSAGES.items()}


def parsed(text: str, expected: str = "") -> Any:
    """Returns a message of JSON. expected: of the protocol, by default this one. Raises UsageError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise refused_message("no JSON", clipped(str(error)), expected) from error


def refused_message(what: str, found: str, expected: str = "") -> UsageError:
    """Returns the error for a message that cannot be used."""
    return UsageError(
        "The message cannot be used.",
        expected=expected or f"an object whose type is {', '.join(MESSAGES)}, or binary audio",
        found=f"{what}: {found}" if found else what,
        todo="see docs/serving.md",
    )


def checked(adapter: TypeAdapter, raw: object) -> Any:
    """Returns a message by its type. Raises UsageError that names the first values which it cannot have."""
    try:
        return adapter.validate_python(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place, given = clipped(".".join(map(str, first["loc"])), 100), clipped(repr(first["input"]), 100)
        raise refused_message(place, f"{first['msg']}, not {given}", "the fields of docs/serving.md") from error


class Native:
    """One connection."""

    def __init__(self):
        self.start = Start()

    def opening(self) -> list[str]:
        """Returns what is sent before the client's first message."""
        return []

    def read(self, message: str | bytes) -> list[tuple[Action, int]]:
        """Returns the actions of a message, each with the bytes of audio in it. Raises UsageError, AudioError."""
        if isinstance(message, bytes):
            return [(Audio(message), self.count(message))]
        raw = parsed(message)
        kind = raw.get("type") if isinstance(raw, dict) else None
        if not isinstance(kind, str) or kind not in MESSAGES:
            raise refused_message("another message", clipped(message))
        fields = checked(_ADAPTERS[kind], raw)
        match kind:
            case "start":
                self.start = _start(fields)
                return [(self.start, 0)]
            case "language":
                return [(Language(fields["language"]), 0)]
            case "flush":
                return [(Flush(), 0)]
        return [(End(), 0)]

    def count(self, data: bytes) -> int:
        """Returns how many samples a message of audio holds. Raises AudioError."""
        if self.start.format == OPUS:
            return packet_samples(data)
        return check_pcm16(data)

    def write(self, event: Event) -> list[str]:
        """Returns the messages of an event."""
        return [json.dumps(_fields(event), ensure_ascii=False)]

    def error(self, error: NemoportError) -> str:
        """Returns the message of an error, which is the last one."""
        return json.dumps({"type": "error"} | error_fields(error))

    def notice(self, seconds: float) -> list[str]:
        """Returns what says that the server ends in so many seconds."""
        return [json.dumps({"type": "draining", "seconds": seconds})]


def error_fields(error: NemoportError) -> dict[str, str]:
    """Returns the sentences of an error."""
    fields = {"message": error.what, "expected": error.expected, "found": error.found, "todo": error.todo}
    return {name: clipped(text, LONGEST_TEXT) for name, text in fields.items() if text}


def _fields(event: Event) -> dict[str, Any]:
    match event:
        case Opened(id, model, start, lookahead, rate_hz, model_rate_hz, chunk_ms):
            fields = {"type": "started", "session": id, "model": model, "language": start.language, "lookahead": lookahead}
            return fields | {"sample_rate": rate_hz, "model_sample_rate": model_rate_hz, "chunk_ms": chunk_ms}
        case Update(words, text, tentative, audio_s):
            fields = {"type": "update", "audio_seconds": round(audio_s, 6), "words": word_fields(words)}
            return fields | {"text": text, "tentative": tentative}
        case Utterance(number, segment, _):
            fields = {"type": "utterance", "number": number} | segment_fields(segment)
            event_of = event_fields(segment.event) if segment.event else None
            return fields | {"words": word_fields(segment.words), "event": event_of}
        case Flushed():
            return {"type": "flushed"}
        case Ended(audio_s):
            return {"type": "end", "audio_seconds": round(audio_s, 6)}


def _start(fields: StartMessage) -> Start:
    return Start(
        model=fields.get("model", ""),
        language=fields.get("language") or None,
        lookahead=fields.get("lookahead"),
        hotwords=tuple(fields.get("hotwords", ())),
        hotword_boost=fields.get("hotword_boost"),
        rate_hz=fields.get("sample_rate", 0),
        format=fields.get("format", PCM16),
        pause_s=fields.get("pause", 0.8),
        progress=fields.get("progress", False),
    )
