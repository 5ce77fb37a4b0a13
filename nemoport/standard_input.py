"""Audio from a stream of bytes that cannot seek, such as standard input: what it is, is found by its first bytes.

WAV and raw samples are given on as they come. All else (FLAC, Ogg, MP3, what ffmpeg reads) goes to a temporary file until the
stream ends, and is read from there.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from nemoport.audio import Audio
from nemoport.errors import AudioError, UsageError
from nemoport.sound import container_of, open_sound
from nemoport.wav import MAGICS, RawReader, WavReader

NAME = "Standard input"
_PACKET_BYTES, _PACKETS_AHEAD = 1 << 16, 64
_HEADERS = (b"RIFF", b"riff", b"RF64", b"BW64", b"fLaC", b"OggS", b"ID3", b"FORM", b"caff", b".snd", b"NIST", b"Creative Voice")
_MP3_KBPS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)  # MPEG 1, layer III
_MP3_KBPS_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)  # MPEG 2 and 2.5
_MP3_HZ = {0xFA: (44100, 48000, 32000), 0xF2: (22050, 24000, 16000), 0xE2: (11025, 12000, 8000)}


class Packets:
    """Bytes of a stream as they come, read by a thread of its own, so that `end` can end them while none come."""

    def __init__(self, stream: Any):
        """stream: binary, of a process or a test."""
        self._raw = getattr(stream, "raw", stream)  # whose lock no thread holds when the process ends
        self._queue: SimpleQueue[bytes | OSError] = SimpleQueue()
        self._room = threading.Semaphore(_PACKETS_AHEAD)
        self._ahead, self._ended = b"", False
        threading.Thread(target=self._fill, daemon=True).start()

    def _fill(self) -> None:
        try:
            while packet := self._raw.read(_PACKET_BYTES):
                self._room.acquire()
                self._queue.put(packet)
        except OSError as error:
            self._queue.put(error)
        self._queue.put(b"")

    def end(self) -> None:
        """Ends the stream behind what has come. May be called in a handler of signals."""
        self._queue.put(b"")

    def read(self, n: int) -> bytes:
        """Returns the next bytes, n at most, as soon as there are any; none at the end. Raises OSError."""
        if not self._ahead and not self._ended:
            self._ahead = self._next()
        data, self._ahead = self._ahead[:n], self._ahead[n:]
        return data

    def head(self, n: int) -> bytes:
        """Returns the first n bytes that are to be read, fewer at the end."""
        while len(self._ahead) < n and not self._ended:
            self._ahead += self._next()
        return self._ahead[:n]

    def unread(self, data: bytes) -> None:
        """Puts bytes that were read before what is to be read."""
        self._ahead = data + self._ahead

    def _next(self) -> bytes:
        while True:
            try:
                packet = self._queue.get(timeout=0.5)  # Windows lets no signal end a wait
                break
            except Empty:
                continue
        if isinstance(packet, OSError):
            raise packet
        self._ended = not packet
        self._room.release()
        return packet


@contextmanager
def audio_of(
    packets: Packets, sample_rate_hz: int, format: str | None, rate_hz: int | None, channels: int | None, channel: int | None
) -> Iterator[Audio]:
    """Yields the audio of a stream at `sample_rate_hz`.

    format (of RAW_FORMATS, by default s16le), rate_hz (by default the model's), channels (by default 1): of raw samples. channel:
    the one to read, from 0; None for the average. Raises AudioError for what cannot be read, UsageError for a form of raw samples
    where a header says another.
    """
    options = {"channel": channel, "min_samples": 0}
    found = format_of(packets)
    if found is None:
        reader = RawReader(packets.read, NAME, format or "s16le", rate_hz or sample_rate_hz, channels or 1)
        yield Audio(reader, NAME, sample_rate_hz, **options)
        return
    if format or rate_hz or channels:
        todo = "leave the options of raw input out"
        raise UsageError("The input has a header of its own.", expected="raw samples", found=found, todo=todo)
    if found == "WAV" and (live := _wav(packets)):
        yield Audio(live, NAME, sample_rate_hz, **options)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "audio"
        with path.open("wb") as file:
            while data := packets.read(_PACKET_BYTES):
                file.write(data)
        try:
            sound = open_sound(path)
        except AudioError as error:
            found = f"{found}; {error.found.replace(str(path), NAME)}"
            raise AudioError(f"{NAME} cannot be read.", expected=error.expected, found=found, todo=error.todo) from error
        yield Audio(sound, NAME, sample_rate_hz, **options)
        sound.close()


def format_of(packets: Packets) -> str | None:
    """Returns what the first bytes say that the stream is; None for raw samples, which say nothing."""
    head = packets.head(16)
    if head[:4] in MAGICS and head[8:12] == b"WAVE":
        return "WAV"
    if container := container_of(head):
        return container
    if magic := next((magic for magic in _HEADERS if head.startswith(magic)), None):
        return magic.decode().strip()
    return "MP3" if head[:1] == b"\xff" and _is_mp3(packets.head(4096)) else None


def _is_mp3(head: bytes) -> bool:
    """Whether a frame of MP3 begins, and another one behind it: two bytes alone may be a sample."""

    def size(at: int) -> int:
        second, third = (*head[at + 1 : at + 3], 0, 0)[:2]
        rates, is_first = _MP3_HZ.get(second & 0xFE), second & 0xFE == 0xFA
        if head[at : at + 1] != b"\xff" or not rates or third >> 4 in (0, 15) or third >> 2 & 3 == 3:
            return 0
        kbps = (_MP3_KBPS if is_first else _MP3_KBPS_2)[third >> 4]
        return (144_000 if is_first else 72_000) * kbps // rates[third >> 2 & 3] + (third >> 1 & 1)

    first = size(0)
    return bool(first and size(first))


def _wav(packets: Packets) -> WavReader | None:
    """Returns a reader of WAV as it comes; None where its coding needs libsndfile, with nothing read."""
    taken = bytearray()

    def read(n: int) -> bytes:
        data = packets.read(n)
        taken.extend(data)
        return data

    try:
        reader = WavReader(read, NAME)
    except AudioError:
        packets.unread(bytes(taken))
        return None
    reader.read_from(packets.read)
    return reader
