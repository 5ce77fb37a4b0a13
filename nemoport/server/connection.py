"""One WebSocket: messages in at the pace that the session is allowed, events out as the client takes them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from nemoport.errors import AudioError, NemoportError, UsageError
from nemoport.server.actions import Action, Audio, End, Ended, Event, Opened, Start
from nemoport.server.limits import Limits
from nemoport.server.live import Live
from nemoport.server.metrics import Metrics
from nemoport.server.models import Model, Models, chunk_ms
from nemoport.server.wire import Wire

if TYPE_CHECKING:
    from starlette.websockets import WebSocket

NORMAL, UNUSABLE, POLICY, FAILED, RESTART = 1000, 1007, 1008, 1011, 1012  # RFC 6455, and its registry for 1012


class Left(Exception):
    """The client has closed the connection, or is gone."""


class Refused(Exception):
    """Ends a connection with an error. code: the close code."""

    def __init__(self, error: NemoportError, code: int, reason: str):
        super().__init__(error.what)
        self.error, self.code, self.reason = error, code, reason


class Connection:
    """A client's connection, and its session from the first message on."""

    def __init__(self, socket: WebSocket, wire: Wire, models: Models, limits: Limits, metrics: Metrics, id: str):
        self._socket, self._wire, self._models, self._limits, self._metrics, self._id = socket, wire, models, limits, metrics, id
        self._loop = asyncio.get_running_loop()
        self._out: asyncio.Queue[list[str] | None] = asyncio.Queue()  # None: the last event was before
        self._room, self._over = asyncio.Event(), asyncio.Event()
        self._model: Model | None = None
        self._live: Live | None = None
        self._failure: Refused | None = None
        self._code = NORMAL
        self._received_s, self._messages, self._began_s = 0.0, 0, time.monotonic()

    async def run(self) -> str:
        """Serves the connection until it ends. Returns how: `ended`, `left`, or why it was refused."""
        self._send(self._wire.opening())
        self._reading = reading = asyncio.create_task(self._read())
        writing, over = asyncio.create_task(self._write()), asyncio.create_task(self._over.wait())
        try:
            await asyncio.wait((reading, writing, over), return_when=asyncio.FIRST_COMPLETED)
            if error := _error_of(reading):
                if not isinstance(error, Refused | Left):
                    raise error
                if not isinstance(error, Refused):
                    return "left"
                self._failure = self._failure or error
            if not self._failure and not writing.done():  # the end was read: the rest is transcribed
                await asyncio.wait((writing, over), return_when=asyncio.FIRST_COMPLETED)
            if self._failure:
                return await self._refuse(self._failure, writing)
            if _error_of(writing):
                return "left"
            with suppress(Exception):
                await asyncio.wait_for(self._socket.close(self._code), self._limits.send_s)
            return "ended"
        finally:
            for task in (reading, writing, over):
                task.cancel()
                _error_of(task)
            self._drop()

    def notify(self, seconds: float) -> None:
        """Says that the server ends in so many seconds."""
        self._send(self._wire.notice(seconds))

    def finish(self) -> None:
        """Ends the audio here, as the server ends: what was received is transcribed."""
        self._code = RESTART
        self._reading.cancel()
        if self._model and self._live:
            self._model.batcher.offer(self._live, End())
        else:
            self._over.set()

    def _drop(self) -> None:
        if self._model and self._live:
            self._model.batcher.remove(self._live)
            self._metrics.sessions.labels(self._model.name).dec()
            self._metrics.audio.labels(self._model.name).inc(self._received_s)
            self._live = None

    async def _refuse(self, refused: Refused, writing: asyncio.Task) -> str:
        """Sends the error and closes, unless the client takes nothing."""
        writing.cancel()
        with suppress(Exception):
            async with asyncio.timeout(min(1.0, self._limits.send_s)):
                await self._socket.send_text(self._wire.error(refused.error))
                await self._socket.close(refused.code, refused.reason)
        return refused.reason

    async def _read(self) -> None:
        ended, end_s = False, time.monotonic() + self._limits.session_s
        while not ended:
            if time.monotonic() > end_s:
                raise self._too_long()
            try:
                async with asyncio.timeout(self._limits.idle_s):
                    received = await self._socket.receive()
            except TimeoutError:
                expected = f"a message within {self._limits.idle_s:g} s"
                raise _refused("The session was idle.", expected, "none", "begin a new session", "idle") from None
            if received["type"] == "websocket.disconnect":
                raise Left
            message = received.get("text")
            try:
                actions = self._wire.read(received["bytes"] if message is None else message)
                for action, samples in actions:
                    ended = ended or isinstance(action, End)
                    await self._take(action, samples)
            except (AudioError, UsageError) as error:
                raise Refused(error, UNUSABLE, "unusable") from error
            await self._pace()

    async def _take(self, action: Action, samples: int) -> None:
        if isinstance(action, Start):
            if self._received_s:
                todo = "send them first, or begin a new session"
                raise UsageError("The session has begun.", expected="settings before audio", found="more", todo=todo)
            self._drop()
            return await self._begin(action)
        if not self._live:
            await self._begin(self._wire.start)
        assert self._model and self._live
        if not isinstance(action, Audio):
            self._model.batcher.offer(self._live, action)
            return
        self._received_s += samples / self._live.rate_hz
        if self._received_s > self._limits.session_s:
            raise self._too_long()
        step = len(action.data) * self._live.rate_hz // max(samples, 1) // 2 * 2 or 1  # a second
        for at in range(0, len(action.data), step):
            part = action.data[at : at + step]
            await self._offer(self._model, self._live, Audio(part), samples * len(part) // len(action.data))

    def _too_long(self) -> Refused:
        expected = f"at most {self._limits.session_s:g} s, and as much audio"
        return _refused("The session is too long.", expected, "more", "begin a new session", "too long")

    async def _offer(self, model: Model, live: Live, audio: Audio, samples: int) -> None:
        """Gives audio to the batcher. The client is not read on while too much waits."""
        self._room.clear()
        model.batcher.offer(live, audio, samples)
        live.is_awaited = True  # before it is looked at: a batch that takes it afterwards gives notice
        while live.waiting_samples > self._limits.waiting_s * live.rate_hz:
            await self._room.wait()
            self._room.clear()
            live.is_awaited = True
        live.is_awaited = False

    async def _begin(self, start: Start) -> None:
        self._model = self._models.find(start.model)
        self._live = await asyncio.to_thread(self._opened, self._model, start)
        self._metrics.sessions.labels(self._model.name).inc()
        self._metrics.opened.labels(self._model.name).inc()
        self._began_s = time.monotonic()
        self._model.batcher.add(self._live)

    def _opened(self, model: Model, start: Start) -> Live:
        recognizer = model.recognizer(start.lookahead, start.language, start.hotwords, start.hotword_boost)
        live = Live(recognizer, start, self._deliver)
        looks = recognizer.lookahead if isinstance(recognizer.lookahead, int) else None
        rates = live.rate_hz, recognizer.sample_rate_hz
        self._deliver([Opened(self._id, model.name, start, looks, *rates, chunk_ms(recognizer))], None)
        return live

    async def _pace(self) -> None:
        """Waits while the client is further ahead than it may be."""
        since_s = time.monotonic() - self._began_s
        early_s = max(
            self._received_s - since_s - self._limits.ahead_s,
            (self._messages - self._limits.ahead_s * self._limits.messages_per_s) / self._limits.messages_per_s - since_s,
        )
        self._messages += 1
        if early_s > 0:
            await asyncio.sleep(early_s)

    def _deliver(self, events: Sequence[Event], error: NemoportError | None) -> None:
        """Called in a thread of the batcher."""
        texts = [text for event in events for text in self._wire.write(event)]
        is_last = any(isinstance(event, Ended) for event in events)
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._delivered, texts, is_last, error)

    def _delivered(self, texts: list[str], is_last: bool, error: NemoportError | None) -> None:
        self._room.set()
        self._send(texts)
        if error:
            code = UNUSABLE if isinstance(error, AudioError | UsageError) else FAILED
            self._fail(Refused(error, code, "unusable" if code == UNUSABLE else "failed"))
        if is_last:
            self._out.put_nowait(None)

    def _send(self, texts: list[str]) -> None:
        if texts:
            self._out.put_nowait(texts)
        if self._out.qsize() > self._limits.events:
            expected = f"at most {self._limits.events} events that wait"
            self._fail(_refused("The client does not take its events.", expected, "more", "read what the server sends", "slow"))

    def _fail(self, refused: Refused) -> None:
        self._failure = self._failure or refused
        self._over.set()

    async def _write(self) -> None:
        while (texts := await self._out.get()) is not None:
            for text in texts:
                try:
                    async with asyncio.timeout(self._limits.send_s):
                        await self._socket.send_text(text)
                except TimeoutError:
                    expected = f"an event taken within {self._limits.send_s:g} s"
                    refused = _refused("The client does not take its events.", expected, "none", "read on", "slow")
                    self._fail(refused)
                    return


def _refused(what: str, expected: str, found: str, todo: str, reason: str) -> Refused:
    return Refused(UsageError(what, expected=expected, found=found, todo=todo), POLICY, reason)


def _error_of(task: asyncio.Task) -> BaseException | None:
    return task.exception() if task.done() and not task.cancelled() else None
