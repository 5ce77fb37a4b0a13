"""Packets of Opus, decoded by libopus in PyAV."""

from __future__ import annotations

import numpy as np

from nemoport.errors import AudioError, UsageError

RATE_HZ = 48_000  # of the decoder, whatever the encoder's
MOST_BYTES = 1275 * 3 + 7  # of a packet: three frames of the largest, and what counts them
_FRAME_SAMPLES = {  # by the upper five bits of a packet's first byte (RFC 6716, table 2)
    **{config: (480, 960, 1920, 2880)[config % 4] for config in range(12)},
    **{config: (480, 960)[config % 2] for config in range(12, 16)},
    **{config: (120, 240, 480, 960)[config % 4] for config in range(16, 32)},
}


def packet_samples(data: bytes) -> int:
    """Returns how many samples, at RATE_HZ, a packet holds. Raises AudioError for what is no packet."""
    if not 0 < len(data) <= MOST_BYTES:
        raise _no_packet(f"{len(data)} bytes")
    code = data[0] & 3
    if code == 3 and len(data) < 2:
        raise _no_packet("no count of its frames")
    frames = (1, 2, 2, data[1] & 63 if code == 3 else 0)[code]
    samples = frames * _FRAME_SAMPLES[data[0] >> 3]
    if not 0 < samples <= 5760:
        raise _no_packet(f"{samples / 48:g} ms")
    return samples


class OpusDecoder:
    """Decodes the packets of one stream to mono."""

    def __init__(self, rate_hz: int = RATE_HZ):
        """rate_hz: RATE_HZ. Raises UsageError for another one, and where PyAV is not installed."""
        if rate_hz != RATE_HZ:
            todo = "leave the rate out"
            raise UsageError("Opus is decoded at one rate.", expected=f"{RATE_HZ} Hz", found=f"{rate_hz} Hz", todo=todo)
        try:
            from av import Packet
            from av.audio.codeccontext import AudioCodecContext
        except ImportError as error:
            todo = "pip install 'nemoport[opus]' at the server, or send 16-bit samples (pcm16)"
            raise UsageError("This server cannot decode Opus.", expected="PyAV", found=str(error), todo=todo) from error
        self._packet, self._context = Packet, AudioCodecContext.create("libopus", "r")
        self._context.sample_rate, self._context.layout = RATE_HZ, "mono"

    def feed(self, data: bytes) -> np.ndarray:
        """Returns the samples of a packet, f32 [n] at RATE_HZ. Raises AudioError."""
        packet_samples(data)
        try:
            frames = [frame.to_ndarray()[0] for frame in self._context.decode(self._packet(data))]
        except ValueError as error:
            raise _no_packet(str(error)) from error
        samples = np.concatenate([np.zeros(0, np.int16), *frames])
        return samples.astype(np.float32) / np.float32(2**15)


def _no_packet(found: str) -> AudioError:
    return AudioError(
        "This is no packet of Opus.",
        expected="one packet in each message, of at most 120 ms, without Ogg around it",
        found=found,
        todo="send what the encoder returns, or 16-bit samples (pcm16); an Ogg file goes to /v1/audio/transcriptions",
    )
