"""WAV from a stream that cannot seek, such as a pipe, or with lengths that were never written: read in blocks.

Chunks before the samples are skipped. A length of 0, or of about 2^31 or 2^32, as recorders, sox and ffmpeg leave it that could
not go back to the header, is unknown: samples reach to the end. RF64 has its length in a chunk of its own.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np

from nemoport.errors import AudioError

MAGICS = (b"RIFF", b"RF64", b"BW64")
UNKNOWN = 0xFFFFFFFF
UNWRITTEN = 0x7FFFF000  # the least length that sox, ffmpeg and others leave in a header that they cannot go back to
MOST_CHANNELS = 1024
SKIPPED = 1 << 16  # samples at once, of a source that cannot seek
_MOST_HEADER = 64 << 20  # bytes before the samples: pictures and texts are small
_PCM, _FLOAT, _ALAW, _ULAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
_BEHIND = {b"LIST", b"fact", b"cue ", b"smpl", b"bext", b"JUNK", b"id3 ", b"ID3 ", b"PAD ", b"iXML", b"afsp", b"FLLR", b"PEAK"}


def skip_by_reading(read: Callable[[int], np.ndarray], n: int) -> int:
    """Reads n samples, or to the end, for a source that cannot seek, and returns how many. read: returns up to so many."""
    left = n
    while left and (got := len(read(min(left, SKIPPED)))):
        left -= got
    return n - left


class WavReader:
    """Samples of a WAV stream. rate_hz, channels; frames: their number, None if the header does not have it."""

    def __init__(self, read: Callable[[int], bytes], name: str):
        """read: returns up to so many bytes, none at the end. Raises AudioError for what is no WAV, and for a coding other than
        integers of 8 to 32 bits, floats, A-law and mu-law."""
        self.name, self._source, self._ahead = name, read, b""
        self._rest: int | None = None  # bytes of samples to come
        self._decode, self.rate_hz, self.channels, self._bytes = self._header()
        self.frames: int | None = None if self._rest is None else self._rest // (self._bytes * self.channels)

    def read(self, n: int) -> np.ndarray:
        """Returns the next f32 [n, channels], full scale 1.0; fewer than n only at the end."""
        frame = self._bytes * self.channels
        data = self._exactly(self._at_most(n * frame))
        return self._samples(data[: len(data) // frame * frame])

    def read_some(self, n: int) -> np.ndarray:
        """Returns what has come, at most f32 [n, channels]; waits for one at the least. None only at the end."""
        frame = self._bytes * self.channels
        data, self._ahead = self._ahead, b""
        while len(data) < frame and (more := self._source(self._at_most(n * frame) - len(data))):
            data += more
        whole = self._at_most(len(data)) // frame * frame
        self._ahead = data[whole:]
        return self._samples(data[:whole])

    def read_from(self, read: Callable[[int], bytes]) -> None:
        """Reads all that follows with another function."""
        self._source = read

    def close(self) -> None:
        """Does nothing: what `read` reads from is its owner's."""

    def skip(self, n: int) -> int:
        """Goes on by n samples, or to the end, and returns by how many."""
        return skip_by_reading(self.read, n)

    def _at_most(self, n_bytes: int) -> int:
        return n_bytes if self._rest is None else min(n_bytes, self._rest)

    def _samples(self, data: bytes) -> np.ndarray:
        if self._rest is not None:
            self._rest -= len(data)
        return self._decode(data).reshape(-1, self.channels)

    def _header(self) -> tuple[Callable[[bytes], np.ndarray], int, int, int]:
        start, size64, coding = self._exactly(12), None, None
        if start[:4] not in MAGICS or start[8:] != b"WAVE":
            raise self._unusable("no header of a WAV")
        left = _MOST_HEADER
        while (left := left - 8) > 0 and len(head := self._exactly(8)) == 8:
            kind, size = head[:4], struct.unpack("<I", head[4:])[0]
            if kind == b"data":
                if coding is None:
                    raise self._unusable("samples without a format before them")
                self._rest = size if size64 is None or size != UNKNOWN else size64
                if self._rest == 0 or (size64 is None and self._rest >= UNWRITTEN):
                    self._rest = None if self._goes_on() else 0
                return coding
            if size > left:
                break
            left -= size
            content = self._exactly(size + size % 2)
            if kind == b"ds64" and size >= 16:
                size64 = struct.unpack("<Q", content[8:16])[0]
            elif kind == b"fmt ":
                coding = self._coding(content)
        raise self._unusable("a header without samples")

    def _goes_on(self) -> bool:
        """Whether samples follow where the length is 0 or unknown, and not another chunk."""
        self._ahead = self._exactly(4)
        return len(self._ahead) == 4 and self._ahead not in _BEHIND

    def _coding(self, content: bytes) -> tuple[Callable[[bytes], np.ndarray], int, int, int]:
        if len(content) < 16:
            raise self._unusable("a damaged format")
        code, channels, rate_hz, _, align, bits = struct.unpack("<HHIIHH", content[:16])
        if code == _EXTENSIBLE and len(content) >= 26:
            code = struct.unpack("<H", content[24:26])[0]
        if not 1 <= channels <= MOST_CHANNELS:
            raise self._unusable(f"{channels} channels")
        n_bytes = align // channels or bits // 8
        decode = {(_PCM, 1): _u8, (_PCM, 2): _s16, (_PCM, 3): _s24, (_PCM, 4): _s32, (_FLOAT, 4): _f32, (_FLOAT, 8): _f64} | {
            (_ALAW, 1): _alaw,
            (_ULAW, 1): _ulaw,
        }
        if (code, n_bytes) not in decode:
            raise self._unusable(f"coding {code:#x} of {bits} bits")
        return decode[code, n_bytes], rate_hz, channels, n_bytes

    def _exactly(self, n: int) -> bytes:
        """Reads n bytes, fewer at the end."""
        data, self._ahead = self._ahead[:n], self._ahead[n:]
        parts, count = [data], len(data)
        while count < n and (data := self._source(n - count)):
            parts.append(data)
            count += len(data)
        return b"".join(parts)

    def _unusable(self, found: str) -> AudioError:
        return AudioError(
            f"{self.name} cannot be read as WAV.",
            expected="a WAV of integers, floats, A-law or mu-law",
            found=found,
            todo="convert it, for example with `ffmpeg -i in out.wav`",
        )


def _u8(data: bytes) -> np.ndarray:
    return (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128


def _s16(data: bytes) -> np.ndarray:
    return np.frombuffer(data, "<i2").astype(np.float32) / 32768


def _s24(data: bytes) -> np.ndarray:
    wide = np.zeros((len(data) // 3, 4), np.uint8)
    wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
    return wide.view("<i4")[:, 0].astype(np.float32) / 2**31


def _s32(data: bytes) -> np.ndarray:
    return np.frombuffer(data, "<i4").astype(np.float32) / 2**31


def _f32(data: bytes) -> np.ndarray:
    return np.frombuffer(data, "<f4").astype(np.float32)


def _f64(data: bytes) -> np.ndarray:
    with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite, and is refused as such
        return np.frombuffer(data, "<f8").astype(np.float32)


def _ulaw(data: bytes) -> np.ndarray:
    """ITU-T G.711."""
    code = ~np.frombuffer(data, np.uint8)
    value = (((code & 0x0F).astype(np.int32) << 3) + 0x84 << ((code >> 4) & 7)) - 0x84
    return np.where(code & 0x80, -value, value).astype(np.float32) / 32768


def _alaw(data: bytes) -> np.ndarray:
    """ITU-T G.711."""
    code = np.frombuffer(data, np.uint8) ^ 0x55
    segment, value = (code >> 4) & 7, ((code & 0x0F).astype(np.int32) << 4) + 8
    value = np.where(segment > 0, (value + 0x100) << np.maximum(segment.astype(np.int32) - 1, 0), value)
    return np.where(code & 0x80, value, -value).astype(np.float32) / 32768


RAW_FORMATS = {  # ffmpeg's names: bytes of a sample, and how they are read
    "s16le": (2, _s16),
    "s24le": (3, _s24),
    "s32le": (4, _s32),
    "f32le": (4, _f32),
    "u8": (1, _u8),
    "mulaw": (1, _ulaw),
    "alaw": (1, _alaw),
}


class RawReader(WavReader):
    """Samples without a header."""

    def __init__(self, read: Callable[[int], bytes], name: str, format: str, rate_hz: int, channels: int):
        """format: of RAW_FORMATS."""
        self.name, self._source, self._ahead, self._rest = name, read, b"", None
        self.frames: int | None = None
        self._bytes, self._decode = RAW_FORMATS[format]
        self.rate_hz, self.channels = rate_hz, channels
