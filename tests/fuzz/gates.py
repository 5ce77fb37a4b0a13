"""What validate reads: gates.toml, the files of results and what gates keep beside them, an earlier page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from fuzz.engine import Target
from fuzz.mutate import BYTES, mutated_bytes, mutated_json
from fuzz.typed import check_types
from nemoport.validate.details import read_details, stamps
from nemoport.validate.gate_result import GateResult
from nemoport.validate.limits import LIMITS_FILE, read_limits
from nemoport.validate.page.changes import FIGURES_TAG, changes, figures_of, read_figures
from nemoport.validate.page.differences import differences
from nemoport.validate.page.rates import word_errors
from nemoport.validate.page.sources import Judged
from nemoport.validate.page.streams import by_minute, drift
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


def kept() -> list[Any]:
    """What gates keep."""
    spoken = [{"text": text, "start": 0.5 * at, "end": 0.5 * at + 0.5} for at, text in enumerate(("a", "see"))]
    recording = {"id": "a", "language": "en", "text": "a c", "path": "none.wav", "sha256": "ab" * 32}
    recording |= {"offset_s": 0.0, "duration_s": 0.0, "seconds": 1.0}
    difference = {"recording": 0, "lookahead": 6, "distance": 1, "nemo": "a c", "own": "a see", "words": spoken}
    texts = {"rate_hz": 16000, "languages": ["en", "ja"], "words": [2, 3], "differing": 1, "recordings": [recording]}
    texts |= {"runs": [{"lookahead": 6, "errors": [1, 0], "nemo_errors": [0, 0]}], "differences": [difference]}
    minutes = [{"number": n, "words": 9, "wer": 1.5, "nemo": 1.0} for n in range(2)]
    stream = {"lookahead": None, "minutes": minutes, "drift": [{"seconds": 3.5, "ratio": 0.1}, {"seconds": 70.0, "ratio": 0.0}]}
    of = stamps(replace(results()[0], gate="x"))
    return [texts | {"stamps": of}, stream | {"stamps": of}]


def read_kept(case: Any, folder: Path) -> None:
    """Reads what a gate keeps and makes the sections of the page of it."""
    text = case if isinstance(case, bytes) else json.dumps(case).encode()
    gate, name = ("wer", "texts") if b"rate_hz" in text else ("longform", "stream")
    (folder / "details").mkdir()
    (folder / "details" / f"fp32.{gate}.json").write_bytes(text)
    found = read_details(folder / "fp32.jsonl", gate, [replace(results()[0], gate=gate)])
    judged = [Judged(0, "fp32", (), (), **{name: found})]
    differences(judged), word_errors(judged), by_minute(judged), drift(judged)


def mutate_kept(rng: Random, seeds: Any) -> bytes:
    return mutated_json(rng, rng.choice(seeds), [json.dumps(seeds[0]).encode()])


def pages() -> list[bytes]:
    return [f"<!doctype html>{FIGURES_TAG}{json.dumps(figures_of([Judged(0, 'fp32', (), tuple(results()))]))}</script>".encode()]


def read_page(text: bytes, folder: Path) -> None:
    """Reads the figures of an earlier page and compares them with others."""
    (folder / "old.html").write_bytes(text)
    changes(read_figures(folder / "old.html"), figures_of([Judged(0, "fp32", (), tuple(results()))]))


def mutate_page(rng: Random, seeds: Any) -> bytes:
    if rng.random() < 0.3:
        return mutated_bytes(rng, seeds[0])
    before, _, rest = seeds[0].partition(FIGURES_TAG.encode())
    return before + FIGURES_TAG.encode() + mutated_json(rng, json.loads(rest.partition(b"</script>")[0])) + b"</script>"


TARGETS = (
    Target("toml", tomls, mutate_toml, read_toml, 100),
    Target("results", lines, mutate_results, read_result_file, 120),
    Target("kept", kept, mutate_kept, read_kept, 60),
    Target("page", pages, mutate_page, read_page, 60),
)
