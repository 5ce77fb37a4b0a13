"""Messages of a server's clients: nemoport's own, OpenAI's, and packets of Opus."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from random import Random
from typing import Any

from fuzz.engine import Target
from fuzz.mutate import mutated_bytes, mutated_json
from nemoport.errors import NemoportError
from nemoport.server.actions import OPUS, Audio, Start
from nemoport.server.native import Native
from nemoport.server.opus import packet_samples
from nemoport.server.realtime import Realtime

START = {"type": "start", "model": "a", "language": "de-DE", "lookahead": 6, "hotwords": ["a b"], "hotword_boost": 1.5}
NATIVE = (
    START | {"sample_rate": 16_000, "format": "pcm16", "pause": 0.8, "progress": True},
    {"type": "start", "format": OPUS},
    {"type": "language", "language": "de"},
    {"type": "flush"},
    {"type": "end"},
)
INPUT = {"format": {"type": "audio/pcm", "rate": 24_000}, "transcription": {"model": "a", "language": "de"}}
OPENAI = (
    {"type": "session.update", "session": {"audio": {"input": INPUT | {"turn_detection": {"silence_duration_ms": 500}}}}},
    {
        "type": "transcription_session.update",
        "session": {"input_audio_format": "pcm16", "input_audio_transcription": {"model": "a"}},
    },
    {"type": "input_audio_buffer.append", "audio": base64.b64encode(bytes(8)).decode()},
    {"type": "input_audio_buffer.commit"},
)
PACKETS = (b"\xb8" + bytes(40), b"\x01\x05ab", b"\xff\x03" + bytes(9))  # of one frame, of two, of three


def read_message(case: tuple[bool, bytes, bool], folder: Path) -> None:
    """Reads a message as a connection does: what is refused is one message of JSON, and what is accepted has its bounds."""
    is_openai, data, is_binary = case
    wire = Realtime("s") if is_openai else Native()
    try:
        actions = wire.read(data if is_binary else data.decode("utf-8", "replace"))
    except NemoportError as error:
        assert isinstance(json.loads(wire.error(error)), dict)
        raise
    for action, samples in actions:
        assert type(samples) is int and samples >= 0
        if isinstance(action, Audio):
            assert samples == len(action.data) // 2 and len(action.data) % 2 == 0
        if isinstance(action, Start):
            assert isinstance(action.model, str) and type(action.rate_hz) is int and action.pause_s > 0
            assert all(isinstance(word, str) for word in action.hotwords) and action.language != ""
            hash(
                (action.lookahead, action.language, action.hotwords, action.hotword_boost)
            )  # the models keep recognizers by these


def messages() -> list[tuple[bool, bytes, bool]]:
    """Valid cases: whether the message is OpenAI's, the message, whether it is binary."""
    return [(is_openai, json.dumps(one).encode(), False) for is_openai in (False, True) for one in (NATIVE, OPENAI)[is_openai]]


def mutate_message(rng: Random, seeds: Any) -> tuple[bool, bytes, bool]:
    is_openai, message, _ = rng.choice(seeds)
    return is_openai, mutated_json(rng, json.loads(message), [other for _, other, _ in seeds]), rng.random() < 0.05


def read_packet(data: bytes, folder: Path) -> None:
    assert 0 < packet_samples(data) <= 5760  # 120 ms


def mutate_packet(rng: Random, seeds: Any) -> bytes:
    return mutated_bytes(rng, rng.choice(seeds), seeds)


TARGETS = (
    Target("message", messages, mutate_message, read_message, 20),
    Target("opus", lambda: PACKETS, mutate_packet, read_packet, 5),
)
