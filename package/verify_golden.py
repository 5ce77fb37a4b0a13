"""`verify --golden`: reads or downloads a file of golden data, and holds the variants of a folder to it."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nemoport.array_file import MOST_BYTES, read_arrays
from nemoport.download import address_of, download
from nemoport.errors import ArtifactError
from nemoport.files import sha256_file
from nemoport.package.golden import OTHER_FILE, Held, hold
from nemoport.package.opening import variants_of
from nemoport.progress import Progress, silent, step
from nemoport.text import clipped, printable
from nemoport.validate.limits import limits_of
from nemoport.variant import FP32

META = ("model_id", "revision", "nemo_version")  # of which a file says what it was recorded of


@dataclass(frozen=True)
class GoldenVerdict:
    """source: the file, its sha256 and what it says that it was recorded of. held: variant -> each array that was compared."""

    source: str
    held: dict[str, list[Held]]

    def __bool__(self) -> bool:
        return all(one.passed for found in self.held.values() for one in found)

    def lines(self) -> list[str]:
        """A line for each array of each variant, and the verdict."""
        lines = [f"golden: {self.source}"]
        lines += [
            f"{variant}: {one.line()}" for variant, found in self.held.items() for one in found if not (one.counts and one.passed)
        ]
        failed = [variant for variant, found in self.held.items() if not all(one.passed for one in found)]
        passed = "within the limits of the gate `numeric` of what NeMo recorded"
        return [*lines, f"Verdict: {', '.join(failed)} DIFFERS from what NeMo recorded" if failed else f"Verdict: {passed}"]

    def to_dict(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "passed": bool(self),
            "variants": {
                variant: [
                    {"array": one.name, "largest": one.largest, "rms_ratio": one.ratio, "passed": one.passed} for one in found
                ]
                for variant, found in self.held.items()
            },
        }


def verify_golden(folder: Path, golden: str, variants: Sequence[str] | None = None, progress: Progress = silent) -> GoldenVerdict:
    """Holds variants of a package, a build or a variant's folder to a file of golden data.

    variants: by default those in full precision, or all where there are none. Golden data judge the export; their features are
    noise, which static ranges were not calibrated for, and what quantization costs is what the gates measure.
    golden: a path, an https address, or organisation/name@revision:path of a file on the Hub. Raises ArtifactError for a file
    that cannot be read or is not of this model, UsageError for one that cannot be had.
    """
    wanted = variants_of(folder, variants)
    if not variants:
        wanted = {name: opened for name, opened in wanted.items() if name.endswith(FP32)} or wanted
    with step("verify: golden data", progress):
        source, arrays = _read(golden)
    held = {}
    for name, opened in wanted.items():
        with step(f"{name}: golden data", progress):
            held[name] = hold(opened(), arrays, limits_of(name))
    return GoldenVerdict(source, held)


def _read(golden: str) -> tuple[str, Mapping[str, np.ndarray]]:
    address = None if Path(golden).exists() else address_of(golden)
    if address is None:
        path = Path(golden)
        if not path.is_file():
            expected = "a path, an https address, or organisation/name@revision:path on the Hub"
            raise ArtifactError(f"There is no file {golden}.", expected=expected, found="nothing", todo="check it")
        arrays, sha256 = read_arrays(path, OTHER_FILE), sha256_file(path)
    else:
        content = download(address, MOST_BYTES)
        sha256 = hashlib.sha256(content).hexdigest()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "golden.npz"
            path.write_bytes(content)
            arrays = read_arrays(path, OTHER_FILE)
    return f"{address or golden}, sha256 {sha256}{_origin(arrays)}", arrays


def _origin(arrays: Mapping[str, np.ndarray]) -> str:
    """What the file says of itself; it is not proof."""
    meta = arrays.get("meta")
    if meta is None or meta.dtype.kind != "U" or meta.size != 1:
        return ""
    try:
        raw = json.loads(str(meta.reshape(-1)[0]))
        found = [printable(clipped(f"{name} {raw[name]}")) for name in META if name in raw]
    except (ValueError, TypeError, RecursionError):
        return ""
    return f", by its own words of {', '.join(found)}" if found else ""
