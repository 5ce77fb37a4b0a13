"""Recordings over HTTP: the form of /v1/audio/transcriptions, with the names of OpenAI's fields."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nemoport import formats
from nemoport.audio import Audio, open_audio
from nemoport.errors import AudioError, UsageError
from nemoport.server.limits import Limits
from nemoport.server.models import Models
from nemoport.server.native import MOST_HOTWORDS
from nemoport.text import clipped
from nemoport.transcription import Hypothesis

if TYPE_CHECKING:
    from starlette.datastructures import FormData, UploadFile
    from starlette.responses import Response

RESPONSE_FORMATS = ("json", "text", "srt", "vtt", "verbose_json")
GRANULARITIES = ("word", "segment")
FIELDS = ("file", "model", "language", "response_format", "timestamp_granularities[]", "hotwords", "temperature")
MOST_FIELDS, MOST_FIELD_BYTES = 20, 1 << 16


@dataclass(frozen=True)
class Request:
    """A recording and what is asked for. granularities: of the times in verbose_json."""

    file: UploadFile
    model: str = ""
    language: str | None = None
    response_format: str = "json"
    granularities: tuple[str, ...] = ("segment",)
    hotwords: tuple[str, ...] = ()


def read_form(form: FormData) -> Request:
    """Reads the fields of a form. Raises UsageError."""
    from starlette.datastructures import UploadFile

    texts: dict[str, list[str]] = {}
    for name, value in form.multi_items():
        if name not in FIELDS:
            todo = "leave it out"
            if name == "prompt":
                todo = "these models take no prompt: name words to expect in hotwords, separated by commas"
            raise UsageError(f"There is no field {clipped(repr(name))}.", expected=", ".join(FIELDS), found=name, todo=todo)
        if isinstance(value, str):
            texts.setdefault(name, []).append(value)
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise UsageError("There is no recording.", expected="a form with the part `file`", found="none", todo="send one")
    granularities = tuple(texts.get("timestamp_granularities[]", ["segment"]))
    chosen = texts.get("response_format", ["json"])[-1]
    for found, known in ((chosen, RESPONSE_FORMATS), *((one, GRANULARITIES) for one in granularities)):
        if found not in known:
            raise UsageError("There is no such format.", expected=", ".join(known), found=clipped(found), todo="choose one")
    words = [word.strip() for word in ",".join(texts.get("hotwords", [])).split(",")]
    words = [word for word in words if word]
    if len(words) > MOST_HOTWORDS:
        raise UsageError("Too many hotwords.", expected=f"at most {MOST_HOTWORDS}", found=str(len(words)), todo="name fewer")
    model, language = texts.get("model", [""])[-1], texts.get("language", [""])[-1] or None
    return Request(file, model, language, chosen, granularities, tuple(words))


class Transcriptions:
    """Transcribes recordings in threads, few at a time, so that live sessions go on."""

    def __init__(self, models: Models, limits: Limits, jobs: int = 1):
        """jobs: recordings at once."""
        self._models, self._limits, self._turn, self._waiting = models, limits, asyncio.Semaphore(jobs), 0
        self._ended = threading.Event()

    @property
    def is_full(self) -> bool:
        """Whether as many recordings wait as may."""
        return self._waiting >= self._limits.uploads

    @property
    def is_busy(self) -> bool:
        """Whether a recording is transcribed or waits."""
        return self._waiting > 0

    def end(self) -> None:
        """Gives up what is transcribed: the next part of it that is read is an error."""
        self._ended.set()

    def _read_on(self) -> None:
        if self._ended.is_set():
            what = "The server ends."
            raise AudioError(what, expected="a server that runs", found="its end", todo="send the recording again")

    async def answer(self, request: Request) -> Response:
        """Returns the transcript. Raises AudioError, UsageError."""
        self._waiting += 1
        try:
            async with self._turn:
                found = await asyncio.to_thread(self._transcribed, request)
        finally:
            self._waiting -= 1
        return _response(found, request)

    def _transcribed(self, request: Request) -> Hypothesis:
        recognizer = self._models.find(request.model).recognizer(None, request.language, request.hotwords, None)
        with tempfile.TemporaryDirectory(prefix="nemoport-") as folder:
            path = Path(folder, "recording")
            with path.open("wb") as file:
                shutil.copyfileobj(request.file.file, file)
            try:
                audio = open_audio(path, recognizer.sample_rate_hz)
                if (audio.seconds or 0) > self._limits.session_s:
                    expected = f"at most {self._limits.session_s:g} s"
                    raise AudioError("The recording is too long.", expected=expected, found=f"{audio.seconds:g} s", todo="cut it")
                return next(recognizer.transcribe([("", _Watched(audio, self._read_on))]))
            except AudioError as error:
                shown = {name: text.replace(str(path), "the recording") for name, text in vars(error).items()}
                raise AudioError(shown["what"], **{n: shown[n] for n in ("expected", "found", "todo")}) from error


class _Watched:
    """A source of samples that calls a function before each part that is read."""

    def __init__(self, audio: Audio, before: Callable[[], None]):
        self._audio, self._before = audio, before

    def read(self, n: int) -> np.ndarray:
        """Returns the next f32 [n]. Raises what the function raises."""
        self._before()
        return self._audio.read(n)


def _response(found: Hypothesis, request: Request) -> Response:
    from starlette.responses import PlainTextResponse

    match request.response_format:
        case "text":
            return PlainTextResponse(found.text + "\n")
        case "srt":
            return PlainTextResponse(formats.as_srt(found), media_type="application/x-subrip")
        case "vtt":
            return PlainTextResponse(formats.as_vtt(found), media_type="text/vtt")
        case "json":
            return _json({"text": found.text})
    fields: dict[str, Any] = {"task": "transcribe", "duration": round(found.audio_seconds, 6), "text": found.text}
    fields["language"] = found.languages[0] if found.languages else request.language
    if "word" in request.granularities:
        # `word`, as OpenAI names it, in place of `text`.
        fields["words"] = [
            {"word" if k == "text" else k: v for k, v in word.items()} for word in formats.word_fields(found.words)
        ]
    if "segment" in request.granularities:
        fields["segments"] = [{"id": i} | formats.segment_fields(segment) for i, segment in enumerate(found.segments)]
    return _json(fields)


def _json(fields: dict[str, Any]) -> Response:
    from starlette.responses import Response

    return Response(json.dumps(fields, ensure_ascii=False), media_type="application/json")
