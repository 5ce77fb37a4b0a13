"""The command line: options of every subcommand, on a package, a checkpoint, graphs and audio with changes in them. The graphs of
a variant are not run: a session of random scores takes their place."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import sys
from functools import lru_cache
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np

from fuzz.checkpoints import archives, configs, mutate_archive
from fuzz.engine import Target
from fuzz.graphs import DATA_BYTES, models, mutate_model
from fuzz.mutate import FLOATS, NAMES, NUMBERS, TEXTS, mutated_bytes, mutated_json
from fuzz.packages import SHA, mutate_tokens
from fuzz.sound import mutate_recording, recordings
from nemoport import recognizer
from nemoport.artifact import DECODER, ENCODER, FileEntry, Manifest, Recipe
from nemoport.caches import NemoCaches, rows_of
from nemoport.cli import main
from nemoport.errors import NemoportError
from nemoport.export import checkpoint
from nemoport.export.config import runtime_config
from nemoport.files import digest_json
from nemoport.frontend import mel_filterbank
from nemoport.package import hub, verify
from nemoport.package.manifest import PackagedVariant, PackageManifest
from nemoport.text import printable

ACCEPTED, REFUSED = 0, 2


class Session:
    """A session of a streaming model, whose scores follow from the number of frames alone."""

    def __init__(self, spec: Any):
        self.spec = spec

    def initial_state(self, batch: int, prompts: Any = ()) -> Any:
        self.spec.check_prompts(batch, prompts)
        return NemoCaches.initial(self.spec.streaming, batch)

    def encode(self, mel: np.ndarray, lengths: np.ndarray, state: Any) -> Any:
        count = -(-mel.shape[2] // self.spec.streaming.subsampling_factor)
        return np.zeros((len(mel), count, self.spec.encoder.d_model), np.float32), np.minimum(lengths, count), state

    steps = 0

    def step(self, frames: np.ndarray, tokens: np.ndarray, state: Any) -> Any:
        scores = np.zeros((*frames.shape[:2], self.spec.decoding.n_scores), np.float32)
        self.steps += 1
        scores[..., -1 if self.steps % 2 else self.steps // 2 % scores.shape[-1]] = 1  # every other one is blank
        return scores, state

    def stack(self, states: Any) -> Any:
        return NemoCaches.stack([NemoCaches(*(getattr(s.batch, f)[s.row : s.row + 1] for f in FIELDS)) for s in states])

    def unstack(self, state: Any) -> Any:
        return rows_of(state)


FIELDS = ("channel", "time", "length")


def _entry(path: str, data: bytes) -> FileEntry:
    import hashlib

    return FileEntry(path, len(data), hashlib.sha256(data).hexdigest())


@lru_cache
def package() -> dict[str, bytes]:
    """A package of one variant, path -> content, whose hashes are right."""
    config = configs()[0]
    spec = checkpoint._spec(config)
    read = checkpoint.Checkpoint(Path("x.nemo"), SHA, spec, config, tuple(config["joint"]["vocabulary"]), b"")
    graphs = {ENCODER: models()[0], f"{ENCODER}.data": bytes(DATA_BYTES), DECODER: models()[1]}
    recipe = Recipe("fp32", None, {"opset": 17})
    entries = {name: _entry(name, data) for name, data in graphs.items()}
    manifest = Manifest("fp32", recipe, recipe.digest, SHA, None, None, {"onnx": "1"}, "x86_64", entries)
    files = {
        "config.json": json.dumps(runtime_config(read)).encode(),
        "shared/filterbank.bin": mel_filterbank(spec.frontend).astype(np.float32).tobytes(),
        "shared/tokens.txt": "".join(f"{piece} {i}\n" for i, piece in enumerate(read.tokens)).encode(),
        "fp32/manifest.json": json.dumps(dataclasses.asdict(manifest)).encode(),
        **{f"fp32/{name}": data for name, data in graphs.items()},
    }
    return {**files, "manifest.json": sealed(files, manifest.digest)}


def sealed(files: dict[str, bytes], digest: str) -> bytes:
    """manifest.json of a package with these files, as its maker writes it, whoever that is."""
    listed = tuple(_entry(path, data) for path, data in sorted(files.items()) if path != "manifest.json")
    made = PackageManifest("x", "native", SHA, "", "apache-2.0", {"fp32": PackagedVariant(digest, ())}, listed)
    return json.dumps({**dataclasses.asdict(made), "digest": made.digest}).encode()


def calls() -> list[Any]:
    """(arguments, files beside the package, standard input)"""
    files = {f"p/{path}": data for path, data in package().items()}
    files |= {
        "a.wav": recordings()[0],
        "x.nemo": archives()[0],
        f"g/{ENCODER}": models()[0],
        f"g/{ENCODER}.data": bytes(DATA_BYTES),
    }
    return [
        (["transcribe", "p/fp32", "a.wav", "a.wav", "--json", "--streams", "2"], files, b""),
        (["transcribe", "p/fp32", "-"], files, bytes(4001)),
        (["verify", "p"], files, b""),
        (["kind", "x.nemo"], files, b""),
        (["shard", f"g/{ENCODER}", "out", "--shard-bytes", "1M"], files, b""),
        (["publish", "p", "--repo", "org/name", "--dry-run"], files, b""),
    ]


# Calls that stop at what is absent or cannot be, and their options.
OTHERS = (
    ["package", "--build", "p", "--dist", "out"],
    ["quantize", "fp16", "--build", "b"],
    ["export", "--checkpoint", "no.nemo", "--build", "b"],
    ["oracle", "--checkpoint", "no.nemo", "--build", "b", "--corpus", "no.jsonl"],
    ["validate", "--checkpoint", "no.nemo", "--build", "b", "--corpus", "no.jsonl"],
    ["sensitivity", "--build", "b"],
)
OPTIONS = (
    "--lookahead", "--flush", "--streams", "--provider", "--threads", "--pass-seconds", "--language", "--beam", "--hotword",
    "--hotword-boost",
    "--json", "--variant", "--shard-bytes", "--repo", "--revision", "--private", "--layout", "--license", "--license-url",
    "--base-model",
    "--profile", "--target", "--precision", "--caches", "--calibration", "--jobs", "--limit", "--shard", "--languages",
    "--split", "--help", "--x",
)  # fmt: skip
VALUES = (
    *TEXTS,
    *map(str, NUMBERS),
    *map(str, FLOATS),
    "1120ms/0",
    "80ms/0",
    "6",
    "13",
    "full",
    "nemo",
    "cpu",
    "fp32",
    "kv",
    "native",
    "2",
    "4",
    "org/x",
    "1e-9",
)


def call(case: tuple, folder: Path) -> None:
    """The exit code is that of an acceptance or a refusal, what is printed fits it, and only a whole package is verified."""
    arguments, files, given = case
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    out, err = io.StringIO(), io.StringIO()
    stdin = SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(given)))  # type: ignore[arg-type]

    def session(artifact: Any, *_: Any, **__: Any) -> Session:
        return Session(artifact.spec)

    with (
        contextlib.chdir(folder),
        mock.patch.object(recognizer, "open_session", session),
        mock.patch.object(verify, "open_session", session),
        mock.patch.object(hub, "_stored_token", lambda: None),
        mock.patch.object(sys, "stdin", stdin),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = _code(arguments)
    printed = out.getvalue() + err.getvalue()
    assert "a fault of nemoport itself" not in printed, "".join(err.getvalue().strip().splitlines(True)[-4:-1])
    controls = {c for c in printed if c != printable(c)} - set("".join(arguments))  # who calls may be quoted
    assert not controls, f"printed {controls} to the terminal"
    assert code in (ACCEPTED, REFUSED), f"exit code {code}"
    if code == REFUSED:
        assert "nemoport" in err.getvalue()
        raise NemoportError("refused")
    if "--help" in arguments or "-h" in arguments:
        return
    if arguments[0] in ("verify", "publish"):
        altered = [
            path
            for path, data in files.items()
            if path.startswith("p/") and path != "p/manifest.json" and data != case_files().get(path)
        ]
        assert not altered or files["p/manifest.json"] != case_files()["p/manifest.json"], f"verified in spite of {altered}"
    if arguments[0] == "transcribe" and "--json" in arguments:
        assert all(json.loads(line)["text"] is not None for line in out.getvalue().splitlines())


def case_files() -> dict[str, bytes]:
    return calls_once()[0][1]


@lru_cache
def calls_once() -> list[Any]:
    return calls()


def _code(arguments: list[str]) -> Any:
    try:
        return main(arguments)
    except SystemExit as stopped:  # argparse's
        return stopped.code


def mutate_call(rng: Random, seeds: Any) -> tuple:
    arguments, files, given = rng.choice(seeds)
    arguments, files = list(arguments), dict(files)
    if rng.random() < 0.1:
        arguments = list(rng.choice(OTHERS))
    if rng.random() < 0.5:
        for _ in range(rng.choice((1, 1, 2, 3))):
            _change_argument(rng, arguments)
    if rng.random() < 0.7:
        _change_file(rng, files, arguments)
    if given:
        given = mutated_bytes(rng, given, (), (b"\xff\x7f" * 100, b"\x00\x80" * 100, b"\x01"))
    return [_within(argument) for argument in arguments], files, given


def _within(argument: str) -> str:
    """An argument without a zero byte, which no process can be given, and not of a place outside: who calls may name any."""
    return argument.replace("\0", "").replace("..", "x").lstrip("/~")


def _change_argument(rng: Random, arguments: list[str]) -> None:
    kind = rng.randrange(6)
    if kind < 3:
        arguments += [rng.choice(OPTIONS), rng.choice(VALUES)]
    elif kind == 3:
        arguments += [rng.choice(OPTIONS)]
    elif kind == 4 and len(arguments) > 1:
        arguments[rng.randrange(1, len(arguments))] = rng.choice((*VALUES, *NAMES, "p", "p/fp32", "x.nemo", "a.wav"))
    else:
        at = rng.randrange(len(arguments) + 1)
        del arguments[at : at + 1]


def _change_file(rng: Random, files: dict[str, bytes], arguments: list[str]) -> None:
    """Changes a file that the call reads. Half of the changes of a package are sealed again, as an attacker does."""
    read = {"kind": "x.nemo", "shard": "g/"}.get(arguments[0] if arguments else "", "p/")
    if arguments[:1] == ["transcribe"] and rng.random() < 0.3:
        read = "a.wav"
    path = rng.choice([name for name in files if name.startswith(read)])
    data = files[path]
    if path.endswith(".json"):
        files[path] = mutated_json(rng, json.loads(data))
    elif path.endswith(".nemo"):
        files[path] = mutate_archive(rng, archives())
    elif path.endswith(".wav"):
        files[path] = mutate_recording(rng, recordings())[0]
    elif path.endswith("tokens.txt"):
        files[path] = mutate_tokens(rng, [data])
    elif path.endswith(".onnx"):
        files[path] = mutate_model(rng, [data, models()[1]])
    else:
        files[path] = mutated_bytes(rng, data)
    if rng.random() < 0.05:
        del files[path]
    elif rng.random() < 0.05:
        files["p/" + rng.choice((".gitattributes", ".git/config", "more.txt", "fp32/more.onnx", "shared/x"))] = b"x"
    if read == "p/" and path != "p/manifest.json" and rng.random() < 0.5:
        inside = {name.removeprefix("p/"): content for name, content in files.items() if name.startswith("p/")}
        try:
            raw = json.loads(inside["fp32/manifest.json"])
            digest = digest_json({k: v for k, v in raw.items() if k not in ("tools", "machine")})
        except Exception:
            digest = SHA
        files["p/manifest.json"] = sealed(inside, digest)


TARGETS = (Target("command-line", calls, mutate_call, call, 10, cpu_seconds=10.0),)
