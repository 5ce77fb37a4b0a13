"""The same inputs give the same bytes: built twice, in processes that differ in all that must not matter.

Promised for one kind of machine (instruction set), one number of threads and the pinned packages: a calibration adds up floats,
and how depends on both.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from nemoport.errors import NemoportError
from nemoport.export.apple.steady import RESOURCE_OFFSETS, RESOURCES, STRINGS, _number, name_weights

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("fp32", "fp16", "int8-dynamic", "int8-static", "int4-weight", "kv-fp32", "kv-int8-weight")  # of conversions
MORE = ("int8-smoothquant", "int8-weight", "int4-mixed", "kv-int8-dynamic", "kv-int4-mixed")
TARGETS = (("openvino", "kv-fp32"), ("coreai", "fp32"), ("coreml", "fp16"))
MORE_TARGETS = (
    ("openvino", "int8"),
    ("openvino", "stateful-fp32"),
    ("coreai", "fp16"),
    ("coreml", "fp32"),
    ("coreml", "int8"),
    ("coreml", "int4"),
)
REFERENCE = {"streaming-en": "", "offline-tdt": "-tdt", "streaming-multilingual": "-multi"}  # and its calibration speech


def make_all(checkpoint: str, calibration: str, folder: Path, variants: list[str], targets: list[list[str]]) -> None:
    """Builds variants and packs the ONNX ones, as far as there are such of the checkpoint. Run in a process of its own."""
    from nemoport.cli import main
    from nemoport.export.checkpoint import read_checkpoint
    from nemoport.package.assemble import package
    from nemoport.validate.gate_result import PASS, GateResult, artifact_sha256

    def call(*arguments: str) -> None:
        if main([*arguments, "--build", str(folder / "build")]):
            sys.exit(f"failed: {arguments}")

    export = ("export", "--checkpoint", checkpoint)
    streaming = read_checkpoint(checkpoint).spec.streaming
    variants = [variant for variant in variants if streaming or not variant.startswith("kv-")]
    for variant in variants:
        if variant.endswith("fp32"):
            call(*export, "--caches", "kv" if variant.startswith("kv-") else "nemo")
        else:
            call("quantize", variant, "--calibration", calibration)
    for target, precision in targets if streaming else []:
        call(*export, "--target", target, "--precision", precision)
    results = folder / "build" / "results"
    results.mkdir()
    for variant in variants:
        result = GateResult("contract", variant, artifact_sha256(folder / "build" / variant), PASS, "", 0.0, 0.0, "problems", 49)
        (results / f"{variant}.jsonl").write_text(json.dumps(result.to_dict()) + "\n")
    terms = {"licence": "apache-2.0", "language": "en", "required_passes": lambda build, variant: []}
    package(folder / "build", folder / "package", variants, **terms)


def content(folder: Path) -> dict[str, tuple[int, str]]:
    """Path -> permissions and hash, of every file."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mode, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in files
    }


def built_twice(checkpoint: Path, calibration: Path, scratch: Path, *chosen) -> tuple[dict, dict]:
    """The contents of two builds, which are made at the same time. chosen: variants and targets of `make_all`."""
    runs = []
    for name, seed, environment in (("a", "1", {"TZ": "UTC+12"}), ("another folder", "77", {"TZ": "UTC-14", "LANG": "C"})):
        temporary = scratch / f"temporary {name}"
        temporary.mkdir()
        arguments = [str(checkpoint), str(calibration), str(scratch / name), *map(json.dumps, chosen)]
        environment = {**os.environ, **environment, "PYTHONHASHSEED": seed, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-P", __file__, *arguments]
        with open(scratch / f"{name}.log", "w") as log:
            runs.append((name, subprocess.Popen(command, env=environment, stdout=log, stderr=log)))
    for name, run in runs:
        assert run.wait() == 0, (scratch / f"{name}.log").read_text()[-2000:]
    return content(scratch / "a"), content(scratch / "another folder")


def assert_same(one: dict, other: dict, at_least: int) -> None:
    assert one.keys() == other.keys() and len(one) >= at_least
    assert [path for path in one if one[path] != other[path]] == []


def test_one_variant_of_each_kind(random_checkpoint, tmp_path):
    pytest.importorskip("torch")
    from quantizing import short_manifest

    from nemoport.export.targets import targets

    installed = [name for name, target in targets().items() if all(map(find_spec, target.modules))]
    chosen = [one for one in TARGETS if one[0] in installed]
    one, other = built_twice(random_checkpoint("tiny"), short_manifest(tmp_path), tmp_path, KINDS, chosen)
    assert_same(one, other, 150)
    packed = {path for path in one if path.startswith("package/")}
    assert {one[path][0] & 0o777 for path in packed} == {0o644}


def bytecode(name: bytes, weights: bytes) -> bytes:
    """MLIR's bytecode of one weight of that name, in the sections that `name_weights` reads."""

    def section(kind: int, data: bytes) -> bytes:
        return bytes([kind]) + _number(len(data)) + data

    strings = [b"coreai", name, b"main"]
    table = b"".join([_number(3), *(_number(len(s) + 1) for s in reversed(strings)), *(s + b"\0" for s in strings)])
    blob = _number(4) + _number(len(weights)) + b"\xcb" * 2 + weights
    entries = _number(0) + _number(0) + _number(1) + _number(1) + _number(len(blob)) + b"\0"
    head = b"ML\xefR" + _number(6) + b"MLIR\0"
    return head + section(RESOURCE_OFFSETS, entries) + section(RESOURCES, blob) + section(STRINGS, table) + section(8, b"end")


def test_weights_are_named_by_their_content(tmp_path):
    path = tmp_path / "main.mlirb"
    made = []
    for name, weights in ((b"resource_1", b"12345678"), (b"resource_18446744073709551615", b"12345678"), (b"resource_1", b"8")):
        path.write_bytes(bytecode(name, weights))
        name_weights(path)
        made.append(path.read_bytes())
        name_weights(path)
        assert path.read_bytes() == made[-1]
    assert made[0] == made[1] != made[2]
    (found,) = re.findall(rb"resource_\d+", made[0])
    assert made[0] == bytecode(found, b"12345678")


@pytest.mark.parametrize("damaged", [b"", b"PK", bytecode(b"layer_norm", b"1234"), bytecode(b"resource_1", b"1")[:-3]])
def test_other_bytecode_is_refused(tmp_path, damaged):
    path = tmp_path / "main.mlirb"
    path.write_bytes(damaged)
    with pytest.raises(NemoportError, match="not what the converter is known to write"):
        name_weights(path)
    assert path.read_bytes() == damaged


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", REFERENCE)
def test_the_reference_checkpoints(name, tmp_path):
    checkpoint = ROOT / "reference" / "checkpoints" / f"{name}.nemo"
    calibration = ROOT / "reference" / "audio" / f"calibration{REFERENCE[name]}.jsonl"
    one, other = built_twice(checkpoint, calibration, tmp_path, KINDS + MORE, TARGETS + MORE_TARGETS)
    assert_same(one, other, 60)


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tests"))
    make_all(sys.argv[1], sys.argv[2], Path(sys.argv[3]), *map(json.loads, sys.argv[4:]))
