"""gates.toml: which gates a variant must pass, and within which limits."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from nemoport.artifact import ONNXRUNTIME
from nemoport.contract import KV, NEMO, contract_of, variant_of
from nemoport.errors import ArtifactError, UsageError
from nemoport.files import sha256_file
from nemoport.variant import FP32

LIMITS_FILE = Path(__file__).with_name("gates.toml")


@dataclass(frozen=True)
class Limits:
    """One variant's block. `streams`: how many utterances the corpus runs take at once. `target`: the runtime it is of."""

    variant: str
    required: tuple[str, ...]
    streams: int
    blocks: dict[str, dict]
    target: str = ONNXRUNTIME

    @property
    def fp32(self) -> str:
        """The variant in full precision that it is compared with: of the same target and contract."""
        return variant_of(contract_of(self.variant), FP32) if self.target == ONNXRUNTIME else f"{self.target}-{FP32}"

    def get(self, gate: str, name: str) -> float:
        """Raises UsageError for a limit that is not stated: without one, nothing would be judged."""
        try:
            return float(self.blocks[gate][name])
        except KeyError as error:
            raise UsageError(
                f"gates.toml states no {name} for {self.variant}.",
                expected=f"{name} = ... in [{self.variant}.{gate}]",
                found="none",
                todo="state the limit and its reason",
            ) from error


def read_limits(path: Path = LIMITS_FILE) -> dict[str, Limits]:
    """variant -> limits, in the file's order, then the same of the kv contract: what it is held to is no other. Last those
    of other runtimes, whose blocks name their `target`. `like` in a block names the variant that it is held to as well.

    Raises ArtifactError for a limit without a reason.
    """
    raw = tomllib.loads(path.read_text())
    missing = [f"[{v}.{g}]" for v, b in raw.items() for g, block in _blocks(b).items() if not block.get("reason")]
    if missing:
        raise ArtifactError(
            f"{path} states limits without their reasons.",
            expected='reason = "..." in every block',
            found=f"none in {', '.join(missing)}",
            todo="write down why each limit is what it is",
        )
    whole = {name: {**raw.get(block.get("like"), {}), **block} for name, block in raw.items()}
    ours = {name: block for name, block in whole.items() if "target" not in block}
    others = {name: block for name, block in whole.items() if "target" in block}
    return {
        (variant := variant_of(contract, precision)): _limits(variant, block)
        for contract in (NEMO, KV)
        for precision, block in ours.items()
    } | {variant: _limits(variant, block) for variant, block in others.items()}


def _limits(variant: str, block: dict) -> Limits:
    streams, target = int(block["streams"]), block.get("target", ONNXRUNTIME)
    return Limits(variant, tuple(block["required"]), streams, _blocks(block), target)


def limits_of(variant: str, path: Path = LIMITS_FILE) -> Limits:
    """Raises UsageError for a variant without a block."""
    every = read_limits(path)
    if variant not in every:
        raise UsageError(
            f"There are no gates for the variant {variant!r}.",
            expected=f"one of {', '.join(every)}",
            found=variant,
            todo=f"choose one of these, or add a [{variant}] block to {path}",
        )
    return every[variant]


def limits_digest(path: Path = LIMITS_FILE) -> str:
    return sha256_file(path)


def _blocks(variant: dict) -> dict[str, dict]:
    return {name: block for name, block in variant.items() if isinstance(block, dict)}
