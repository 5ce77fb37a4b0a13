"""Puts audio into the page: small, in bounded number, and only what was judged."""

from __future__ import annotations

import base64
import hashlib
import io
from pathlib import Path

import numpy as np

from nemoport.audio import read_audio
from nemoport.errors import NemoportError
from nemoport.validate.details import Recording

MOST_BYTES = 3_000_000  # of all clips in a page, before base64
MOST_SECONDS = 120.0  # of a clip
OPUS_RATES_HZ = (8000, 12000, 16000, 24000, 48000)


class Clips:
    """The clips of a page. taken: bytes so far; number: clips so far."""

    def __init__(self) -> None:
        self.taken, self.number = 0, 0

    def of(self, recording: Recording, rate_hz: int) -> tuple[str, str]:
        """Returns the data URI of the recording's audio and "", or "" and the reason why it is not in the page.

        rate_hz: the model's. The audio must have the samples that were judged.
        """
        if recording["seconds"] > MOST_SECONDS:
            return "", f"longer than {MOST_SECONDS:.0f} s"
        if self.taken >= MOST_BYTES:
            return "", f"the page holds at most {MOST_BYTES / 1e6:.0f} MB of audio"
        try:
            path, offset_s, duration_s = Path(recording["path"]), recording["offset_s"], recording["duration_s"]
            samples = read_audio(path, rate_hz, offset_s=offset_s, duration_s=duration_s)
        except (NemoportError, OSError, ValueError):
            return "", "the file cannot be read any more"
        if hashlib.sha256(samples.tobytes()).hexdigest() != recording["sha256"]:
            return "", "the file has other audio than was judged"
        kind, content = encoded(samples, rate_hz)
        if self.taken + len(content) > MOST_BYTES:
            return "", f"the page holds at most {MOST_BYTES / 1e6:.0f} MB of audio"
        self.taken, self.number = self.taken + len(content), self.number + 1
        return f"data:{kind};base64,{base64.b64encode(content).decode()}", ""


def encoded(samples: np.ndarray, rate_hz: int) -> tuple[str, bytes]:
    """Returns (media type, file): Opus in Ogg, about 30 kbit/s at 16 kHz, or FLAC at a rate that Opus does not have.

    samples: f32 [n], mono.
    """
    import soundfile

    opus = rate_hz in OPUS_RATES_HZ
    form, subtype = ("OGG", "OPUS") if opus else ("FLAC", "PCM_16")
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format=form, subtype=subtype)
    return ("audio/ogg", _numbered(file.getvalue())) if opus else ("audio/flac", file.getvalue())


def _numbered(ogg: bytes) -> bytes:
    """Returns an Ogg file whose stream has the number 1: libsndfile draws one, and the same results shall give the same page.
    Then it need not be written again, on a disk that is read-only.

    RFC 3533, section 6: of a page the number is at 14, its CRC at 22, the lengths of its segments behind 27 bytes.
    """
    pages, at = [], 0
    while at < len(ogg):
        segments = ogg[at + 26]
        end = at + 27 + segments + sum(ogg[at + 27 : at + 27 + segments])
        page = ogg[at : at + 14] + (1).to_bytes(4, "little") + ogg[at + 18 : at + 22] + bytes(4) + ogg[at + 26 : end]
        pages.append(page[:22] + _crc(page).to_bytes(4, "little") + page[26:])
        at = end
    return b"".join(pages)


def _crc(page: bytes) -> int:
    crc = 0
    for byte in page:
        crc = (crc << 8 & 0xFFFFFFFF) ^ CRC_TABLE[crc >> 24 ^ byte]
    return crc


def _crc_of(byte: int) -> int:
    crc = byte << 24
    for _ in range(8):
        crc = (crc << 1 ^ (0x104C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
    return crc


CRC_TABLE = [_crc_of(byte) for byte in range(256)]
