"""The protocol of /v1/realtime: names of OpenAI's realtime transcription sessions, as far as this server has what they mean.

An utterance is an item. It ends as in /v1/stream, by a pause or an event of the model's, or where the client commits the buffer.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from nemoport.errors import AudioError, NemoportError, UsageError
from nemoport.server.actions import Action, Audio, Ended, Event, Flush, Flushed, Opened, Start, Update, Utterance
from nemoport.server.live import check_pcm16
from nemoport.server.native import parsed
from nemoport.text import clipped

RATE_HZ = 24_000  # of OpenAI's PCM
_TYPES = (
    "session.update",
    "transcription_session.update",
    "input_audio_buffer.append",
    "input_audio_buffer.commit",
    "input_audio_buffer.clear",
)
_EXPECTED = f"a type of {', '.join(_TYPES)}"
_BEFORE = "conversation.item.input_audio_transcription"


class Realtime:
    """One connection."""

    def __init__(self, session: str, model: str = ""):
        """session: its id; model: of the address, until the client names another."""
        self._session, self.start = session, Start(model=model, rate_hz=RATE_HZ)
        self._count = self._number = 0  # events; the item that is transcribed
        self._kind = "session"  # or transcription_session, as the client calls it

    def opening(self) -> list[str]:
        """Returns what is sent before the client's first message."""
        return [self._event("session.created", session=self._settings())]

    def read(self, message: str | bytes) -> list[tuple[Action, int]]:
        """Returns the actions of a message, each with the samples in it. Raises UsageError, AudioError."""
        if isinstance(message, bytes):
            raise _refused("a binary message", "text: audio in input_audio_buffer.append, as base64")
        raw = parsed(message, _EXPECTED)
        kind = raw.get("type") if isinstance(raw, dict) else None
        if kind not in _TYPES:
            raise _refused(clipped(repr(kind)), _EXPECTED)
        match kind:
            case "input_audio_buffer.append":
                data = _audio(raw.get("audio"))
                return [(Audio(data), check_pcm16(data))]
            case "input_audio_buffer.commit":
                return [(Flush(), 0)]
            case "input_audio_buffer.clear":
                raise _refused(kind, "audio that is to be transcribed: it is, as it comes")
        self._kind = kind.removesuffix(".update")
        self.start = _start(_section(raw, "session"), self.start)
        return [(self.start, 0)]

    def write(self, event: Event) -> list[str]:
        """Returns the messages of an event."""
        match event:
            case Opened():
                return [self._event(f"{self._kind}.updated", session=self._settings())]
            case Update(words, _, _, _):
                return self._delta(word.text for word in words)
            case Utterance(number, segment, new):
                made = self._delta(word.text for word in new)
                done = self._event(f"{_BEFORE}.completed", **self._item(number), transcript=segment.text)
                self._number = number + 1
                return [*made, done]
            case Flushed(number):
                return [self._event("input_audio_buffer.committed", item_id=f"item_{self._session}_{max(number, 0)}")]
            case Ended():
                return []
        return []

    def error(self, error: NemoportError) -> str:
        """Returns the message of an error, which is the last one."""
        what = " ".join(filter(None, (error.what, error.expected and f"Expected: {error.expected}.", f"Found: {error.found}.")))
        code = "invalid_audio" if isinstance(error, AudioError) else "invalid_value"
        fields = {"type": "invalid_request_error", "code": code, "message": clipped(what, 2000), "param": None}
        return self._event("error", error=fields | {"todo": error.todo})

    def notice(self, seconds: float) -> list[str]:
        """Returns nothing: no event says that a server ends."""
        return []

    def _delta(self, words: Any) -> list[str]:
        text = "".join(f"{word} " for word in words)
        return [self._event(f"{_BEFORE}.delta", **self._item(self._number), delta=text)] if text else []

    def _item(self, number: int) -> dict[str, Any]:
        return {"item_id": f"item_{self._session}_{number}", "content_index": 0}

    def _settings(self) -> dict[str, Any]:
        transcription = {"model": self.start.model, "language": self.start.language}
        audio = {"input": {"format": {"type": "audio/pcm", "rate": self.start.rate_hz}, "transcription": transcription}}
        return {"id": self._session, "object": "realtime.transcription_session", "type": "transcription", "audio": audio}

    def _event(self, kind: str, **fields: Any) -> str:
        self._count += 1
        return json.dumps({"event_id": f"event_{self._session}_{self._count}", "type": kind} | fields, ensure_ascii=False)


def _audio(text: object) -> bytes:
    if not isinstance(text, str):
        raise _refused(clipped(repr(text)), "audio as base64")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _refused(str(error), "audio as base64") from error


def _start(session: dict[str, Any], before: Start) -> Start:
    """Returns the settings of a session. Both forms are taken: of 2024 (input_audio_format) and of 2025 (audio.input)."""
    given = _section(_section(session, "audio"), "input")
    transcription = _section(given, "transcription") or _section(session, "input_audio_transcription")
    turns = _section(given, "turn_detection") or _section(session, "turn_detection")
    form, rate = given.get("format"), before.rate_hz
    if isinstance(form, dict):
        form, rate = form.get("type"), form.get("rate", rate)
    form = form or session.get("input_audio_format") or "pcm16"
    if form not in ("pcm16", "audio/pcm") or type(rate) is not int or rate <= 0:
        raise _refused(clipped(f"{form!r}, {rate!r} Hz"), "16-bit PCM (pcm16, audio/pcm) and a rate in Hz")
    if transcription.get("prompt"):
        raise _refused("a prompt", "none: these models take hotwords, see /v1/stream")
    model, language = transcription.get("model") or before.model, transcription.get("language") or before.language
    if not isinstance(model, str) or not isinstance(language, str | None):
        raise _refused(clipped(f"{model!r}, {language!r}"), "names of a model and a language")
    silence_ms = turns.get("silence_duration_ms", 1000 * before.pause_s)
    if type(silence_ms) not in (int, float) or not 0 < silence_ms <= 3_600_000:
        raise _refused(clipped(repr(silence_ms)), "milliseconds of silence above 0")
    return Start(model=model, language=language, rate_hz=rate, pause_s=silence_ms / 1000)


def _section(raw: dict[str, Any], name: str) -> dict[str, Any]:
    section = raw.get(name) or {}
    if not isinstance(section, dict):
        raise _refused(f"{name}: {clipped(repr(section))}", "an object")
    return section


def _refused(found: str, expected: str) -> UsageError:
    return UsageError("The event cannot be used.", expected=expected, found=found, todo="see docs/serving.md")
