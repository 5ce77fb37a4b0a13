"""Audio files and packets, lists of recordings, data sets, hotwords."""

from __future__ import annotations

import io
import json
import struct
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import numpy as np
import soundfile

from fuzz.checkpoints import configs
from fuzz.engine import Target
from fuzz.mutate import FLOATS, NUMBERS, TEXTS, mutated_bytes, mutated_json, odd_value
from nemoport import audio
from nemoport.chunker import make_chunker
from nemoport.export import checkpoint
from nemoport.frontend import mel_filterbank
from nemoport.hotwords import Hotwords
from nemoport.spec import ModelSpec
from nemoport.speech import dataset
from nemoport.speech.corpus import prompts, read_corpus
from nemoport.tokens import detokenize

RATE_HZ = 16_000
ENDINGS = (".wav", ".wav", ".flac", ".raw", ".mp3", ".ogg", ".aiff", "", ".nemo")
WAV_FIELDS = ((4, "<I"), (16, "<I"), (20, "<H"), (22, "<H"), (24, "<I"), (28, "<I"), (32, "<H"), (34, "<H"), (40, "<I"))


@lru_cache
def recordings() -> list[bytes]:
    """800 samples in several formats, rates and channels."""
    wave = (0.3 * np.sin(np.arange(800) / 5)).astype(np.float32)
    made = []
    for form, subtype, rate, channels in (
        ("WAV", "PCM_16", 16_000, 1), ("WAV", "FLOAT", 16_000, 1), ("WAV", "PCM_24", 44_100, 2), ("WAV", "ULAW", 8000, 1),
        ("WAV", "IMA_ADPCM", 16_000, 1), ("FLAC", "PCM_16", 16_000, 1), ("OGG", "VORBIS", 16_000, 1),
        ("AIFF", "PCM_16", 22_050, 1),
        ("W64", "DOUBLE", 16_000, 1), ("CAF", "PCM_16", 16_000, 1), ("AU", "FLOAT", 16_000, 1),
    ):  # fmt: skip
        stream = io.BytesIO()
        soundfile.write(stream, np.stack([wave] * channels, 1), rate, subtype, format=form)
        made.append(stream.getvalue())
    return made


def read_recording(case: bytes | tuple[bytes, str], folder: Path) -> None:
    data, ending = case if isinstance(case, tuple) else (case, ".wav")
    path = folder / f"x{ending}"
    path.write_bytes(data)
    samples = audio.read_audio(path, RATE_HZ)
    assert samples.dtype == np.float32 and samples.ndim == 1 and len(samples) >= RATE_HZ // 100
    assert np.isfinite(samples).all() and np.abs(samples).max() < 16, "a peak"


def mutate_recording(rng: Random, seeds: Any) -> tuple[bytes, str]:
    data = bytearray(rng.choice(seeds))
    if data[:4] == b"RIFF" and rng.random() < 0.6:
        for at, form in rng.sample(WAV_FIELDS, rng.choice((1, 1, 2, 3))):
            top = 1 << 8 * struct.calcsize(form)
            struct.pack_into(
                form, data, at, rng.choice((*NUMBERS, 4000, 3999, 768_000, 44_100, 24, 65_534, rng.randrange(top))) % top
            )
    if rng.random() < 0.6:
        floats = [struct.pack("<f", value) for value in (*[f for f in FLOATS if abs(f) < 1e38 or f != f], 3e38, 100.0)]
        data = bytearray(
            mutated_bytes(rng, bytes(data), seeds, (*floats, b"\0\0", b"\xff\x7f", b"RIFF", b"data", b"fLaC", b"OggS", b"ID3"))
        )
    return bytes(data), rng.choice(ENDINGS)


@lru_cache
def _model() -> tuple[ModelSpec, np.ndarray]:
    spec = checkpoint._spec(configs()[0])
    return spec, mel_filterbank(spec.frontend)


def packets() -> list[Any]:
    return [[np.zeros(n, np.float32) + 0.1 for n in (0, 1, 7, 160, 4000)], [np.zeros(321, np.float64)]]


def read_packets(case: list[np.ndarray], folder: Path) -> None:
    """A live stream's packets become windows of finite numbers, whose frames follow from the samples."""
    spec, filterbank = _model()
    chunker = make_chunker(spec, filterbank, spec.lookaheads[0], "full")
    made = [chunk for packet in case for chunk in chunker.feed(packet)] + chunker.finish()
    assert all(np.isfinite(chunk.mel).all() and 0 < chunk.length <= chunk.mel.shape[1] for chunk in made)
    assert len(made) <= 2 + sum(map(len, case)) // spec.frontend.hop_samples


def mutate_packets(rng: Random, seeds: Any) -> list[Any]:
    made = []
    for _ in range(rng.choice((1, 2, 3, 6))):
        size = rng.choice((0, 1, 2, 159, 160, 161, 1000, 5000))
        packet = np.frombuffer(rng.randbytes(size * 2), "<i2").astype(np.float32) / 32768
        kind = rng.randrange(10)
        if kind == 0:
            packet = packet.astype(rng.choice(("f8", "f2", "i2", "u1", "c8", "?", "O", "U3", "M8[s]")))
        elif kind == 1:
            packet = packet.reshape(rng.choice(((-1, 1), (1, -1), (1, 1, -1))) if size else (0, 3))
        elif kind == 2 and size:
            packet[rng.randrange(size)] = rng.choice((*FLOATS, 8.01, -100.0)) if rng.random() < 0.9 else 3e38
        elif kind == 3:
            packet = rng.choice(
                (
                    None,
                    [],
                    [0.1],
                    "x",
                    b"\0\0",
                    0.5,
                    np.float32(1),
                    [[0.1], [0.1, 0.2]],
                    packet[::-2],
                    np.frombuffer(rng.randbytes(64), np.float32),
                )
            )
        made.append(packet)
    return made


def corpora() -> list[Any]:
    row = {
        "audio_filepath": "a.wav",
        "text": "hello world",
        "lang": "en-US",
        "target_lang": "en-US",
        "offset": 0,
        "duration": 0.02,
    }
    return [[row, {**row, "audio_filepath": "b.wav", "text": ""}]]


def read_list(case: Any, folder: Path) -> None:
    text = case if isinstance(case, bytes) else b"\n".join(json.dumps(row).encode() for row in case)
    for name in ("a.wav", "b.wav"):
        (folder / name).write_bytes(recordings()[0])
    (folder / "list.jsonl").write_bytes(text)
    corpus = read_corpus(folder / "list.jsonl", RATE_HZ)
    assert len(corpus.digest) == 64 and 0 < corpus.seconds < 1 + len(text)
    for one in corpus.utterances:
        assert all(isinstance(t, str) for t in (one.id, one.text, one.language, one.prompt_language))
        one.text.encode()
    prompts(corpus, checkpoint._spec(configs()[1]))


def mutate_list(rng: Random, seeds: Any) -> bytes:
    made = [mutated_json(rng, row) if rng.random() < 0.7 else json.dumps(row).encode() for row in seeds[0]]
    # A manifest may name any file of its user, so that reading one is no finding.
    text = b"\n".join(made).replace(b"/etc/passwd", b"etc/passwd")
    return mutated_bytes(rng, text) if rng.random() < 0.1 else text


class Rows(list):
    """Rows as `datasets` gives them."""

    column_names: Any = ("audio", "text")

    def cast_column(self, *_: Any) -> Rows:
        return self


def data_sets() -> list[Any]:
    row = {"audio": {"bytes": recordings()[0], "path": "x.wav"}, "text": "hello"}
    return [{"rows": [row, row], "languages": ["en_us"], "limit": None, "shard": None, "split": "test"}]


def read_data_set(case: dict, folder: Path) -> None:
    """No row reads or writes a file of somewhere else, whatever its path is."""
    spec = checkpoint._spec(configs()[1])
    part = dataset.Part.parse(case["limit"], case["shard"])
    with mock.patch.object(dataset, "_open", lambda *_: Rows(case["rows"])):
        path = dataset.dataset_manifest("org/name", case["languages"], folder / "data", spec, case["split"], part)
    names = [json.loads(line)["audio_filepath"] for line in path.read_text("utf-8").removesuffix("\n").split("\n")]
    assert all((path.parent / name).resolve().is_relative_to(folder.resolve()) for name in names)


def mutate_data_set(rng: Random, seeds: Any) -> dict:
    made = {**seeds[0], "rows": [dict(row) for row in seeds[0]["rows"]]}
    row = rng.choice(made["rows"])
    kind = rng.randrange(9)
    if kind < 3:
        path = rng.choice(
            (
                *TEXTS,
                "/etc/hostname",
                "/proc/self/environ",
                "a.wav/../../x",
                "x.\x1b[2J",
                "x" * 250 + ".wav",
                "x." + "y" * 300,
                "x.a/b",
            )
        )
        row["audio"] = {"bytes": rng.choice((None, b"", b"x", recordings()[0])), "path": rng.choice((path, odd_value(rng)))}
    elif kind == 3:
        row[rng.choice(("audio", "text"))] = odd_value(rng)
    elif kind == 4:
        row.pop(rng.choice(("audio", "text")))
    elif kind == 5:
        made["languages"] = [rng.choice((*TEXTS, "en_us", "../x", "de_de")) for _ in range(rng.randrange(3))]
    elif kind == 6:
        made["shard"] = rng.choice((*TEXTS, "1/2", "2/1", "0/0", "١/٢", "1/" + "9" * 5000, "2/2", "1/1\n"))
    elif kind == 7:
        made["limit"] = rng.choice(NUMBERS)
    else:
        made["rows"] = rng.choice(([], [None], [[]], [row] * 3, ["x"]))
    return made


def hotwords() -> list[Any]:
    pieces = ["<unk>", *[f"▁{c}" for c in "abcdehlnorwy"], *"abcdehlnorwy", "▁", "<0xC3>", "<0xA9>", "▁new", "<en-US>"]
    return [(pieces, ["new york hello"[:3], "hello"], 1.5, b"walk of tokens")]


def read_hotwords(case: tuple, folder: Path) -> None:
    pieces, phrases, boost, walk = case
    words = Hotwords(pieces, phrases, boost)
    match, total = words.start, 0.0
    for byte in walk:
        token = byte % len(pieces)
        gains = words.gains(match)
        assert gains.shape == (len(pieces) + 1,) and np.isfinite(gains).all()
        total += gains[token]
        match = words.advance(match, token)
    assert np.isfinite(total + words.end(match))
    detokenize(pieces, [byte % len(pieces) for byte in walk])


def mutate_hotwords(rng: Random, seeds: Any) -> tuple:
    pieces, phrases, boost, _ = seeds[0]
    pieces, phrases = list(pieces), list(phrases)
    for _ in range(rng.randrange(3)):
        pieces[rng.randrange(len(pieces))] = rng.choice(
            ("", " ", "<0xe9>", "<0xFF>", "é", "ß", "İ", "x" * 256, "[x]", "▁▁", "a b", "\u0130")
        )
    for _ in range(rng.randrange(1, 4)):
        text = rng.choice(
            (
                *TEXTS,
                "hello",
                "hell",
                "new hello new",
                "HELLO",
                "h e l l o",
                "ﬀ",
                "é",
                "İ",
                " hello ",
                "a" * 300,
                "ab" * 1000,
                "\u00a0a",
                "a\u200bb",
            )
        )
        if rng.random() < 0.8:
            phrases[rng.randrange(len(phrases))] = text
        else:
            phrases.append(text)
    if rng.random() < 0.1:
        boost = rng.choice((*FLOATS, *NUMBERS))
    return pieces, phrases if rng.random() < 0.97 else [], boost, rng.randbytes(12)


TARGETS = (
    Target("audio", recordings, mutate_recording, read_recording, 120),
    Target("packets", packets, mutate_packets, read_packets, 40),
    Target("corpus", corpora, mutate_list, read_list, 60),
    Target("data-set", data_sets, mutate_data_set, read_data_set, 5),
    Target("hotwords", hotwords, mutate_hotwords, read_hotwords, 30),
)
