"""What validate reads: gates.toml and the files of results."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

from fuzz.engine import Target
from fuzz.mutate import BYTES, mutated_bytes, mutated_json
from fuzz.typed import check_types
from nemoport.validate.gate_result import GateResult
from nemoport.validate.limits import LIMITS_FILE, read_limits
from nemoport.validate.result_store import describe, read_results, write_results

TOML_PIECES = (
    *BYTES, b"[", b"]", b"[[x]]\n", b"[fp32]\n", b'like = "fp32"\n', b'like = "x"\n', b"like = 1\n", b"streams = 0\n",
    b"streams = -1\n",
    b"streams = true\n", b"streams = 1e9\n", b"required = [1]\n", b"required = ['x', ['y']]\n", b"reason = ''\n",
    b"reason = 1\n", b"nan", b"inf",
    b"1979-05-27", b"9" * 400, b"9" * 5000, b"0x" + b"f" * 300, b"true", b'target = "x"\n', b'target = "\x1b"\n',
    b'target = ["x"]\n', b"a.b.c = 1\n",
    b"[" * 1000, b"{a=" * 1000, b"'''", b'"\\ud800"', b'"\\u001b"', b"[parity]\n", b"like = 'fp16'\n[fp16]\nlike = 'fp32'\n",
)  # fmt: skip


def tomls() -> list[bytes]:
    small = b"[fp32]\nrequired = ['parity']\nstreams = 4\n[fp32.parity]\nmost_db = 1.5\nreason = 'x'\n[fp16]\nlike = 'fp32'\n"
    small += b"[openvino-fp32]\nlike = 'fp16'\ntarget = 'openvino'\n"
    gates = sorted(path.stem for path in LIMITS_FILE.with_name("gates").glob("[!_]*.py"))
    return [small.replace(b"parity", gates[0].encode()), LIMITS_FILE.read_bytes()]


def read_toml(text: bytes, folder: Path) -> None:
    path = folder / "gates.toml"
    path.write_bytes(text)
    for limits in read_limits(path).values():
        check_types(limits)
        assert limits.streams > 0


def mutate_toml(rng: Random, seeds: Any) -> bytes:
    if rng.random() < 0.01:
        links = b"".join(b"[v%d]\nlike = 'v%d'\n" % (i, i + 1) for i in range(1500))
        return links + b"[v1500]\nrequired = []\nstreams = 1\n"
    return mutated_bytes(rng, seeds[0] if rng.random() < 0.95 else seeds[1], seeds, TOML_PIECES)


def results() -> list[GateResult]:
    return [
        GateResult("parity", "fp32", "ab" * 32, "pass", "lookahead 6", 1.5, 2.0, "dB", 9, (1.0, 2.0), "x", "cd" * 32, "ef", "gh"),
        GateResult("size", "fp32", "ab" * 32, "fail"),
    ]


def lines() -> list[Any]:
    return [[json.loads(json.dumps(one.to_dict())) for one in results()]]


def read_result_file(text: bytes | list, folder: Path) -> None:
    path = folder / "fp32.jsonl"
    path.write_bytes(text if isinstance(text, bytes) else b"\n".join(json.dumps(one).encode() for one in text))
    found = read_results(path)
    for one in found:
        check_types(one, finite=False)
        describe(one)
        assert one.status in ("pass", "fail")
    write_results(path, found)
    assert read_results(path) == found


def mutate_results(rng: Random, seeds: Any) -> bytes:
    made = [mutated_json(rng, one) for one in seeds[0]]
    return mutated_bytes(rng, b"\n".join(made)) if rng.random() < 0.2 else b"\n".join(made)


TARGETS = (
    Target("toml", tomls, mutate_toml, read_toml, 100),
    Target("results", lines, mutate_results, read_result_file, 120),
)
