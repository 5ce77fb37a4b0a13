"""What stands in a build or a package beside the graphs: manifests, config.json, tokens, languages, audio's metadata."""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath
from random import Random
from typing import Any

from fuzz.checkpoints import configs
from fuzz.engine import Target
from fuzz.mutate import TEXTS, mutated_bytes, mutated_json
from fuzz.typed import check_types
from nemoport.artifact import FileEntry, Manifest
from nemoport.export import checkpoint
from nemoport.files import digest_json
from nemoport.package.manifest import PackagedVariant, PackageManifest
from nemoport.spec import ModelSpec
from nemoport.text import has_controls
from nemoport.tokens import detokenize, read_tokens, split_tags, tag_tokens

SHA = "0123456789abcdef" * 4


def manifests() -> list[Any]:
    entry = {"path": "encoder_model.onnx", "bytes": 5, "sha256": SHA}
    recipe = {"variant": "fp32", "parent": None, "parameters": {"target": "onnxruntime", "lookahead": 6, "opset": 17}}
    return [
        {
            "variant": "fp32",
            "recipe": recipe,
            "recipe_digest": SHA,
            "checkpoint_sha256": SHA,
            "parent_digest": None,
            "corpus_digest": SHA,
            "tools": {"onnx": "1"},
            "machine": "x86_64",
            "files": {"encoder": entry, "data": {**entry, "path": "encoder_model.onnx.data"}},
            "schema": 1,
        }
    ]


def _text(case: Any) -> bytes:
    return case if isinstance(case, bytes) else json.dumps(case).encode()


def read_manifest(case: Any, folder: Path) -> None:
    (folder / "manifest.json").write_bytes(_text(case))
    found = Manifest.read(folder)
    check_types(found)
    _check_entries(tuple(found.files.values()))
    assert isinstance(found.recipe.target, str) and isinstance(found.recipe.lookahead, int | None)
    assert len(found.digest) == len(found.recipe.digest) == 64


def _check_entries(entries: tuple[FileEntry, ...]) -> None:
    for entry in entries:
        parts = PurePosixPath(entry.path).parts
        assert parts and ".." not in parts and not entry.path.startswith("/") and "\\" not in entry.path, (
            f"path {entry.path!r:.80}"
        )
        assert entry.path.isprintable() and entry.bytes >= 0 and re.fullmatch("[0-9a-f]{64}", entry.sha256)


def package_manifests() -> list[Any]:
    gates = ({"gate": "parity", "status": "pass", "measured": 1.5},)
    files = (FileEntry("config.json", 5, SHA), FileEntry("fp32/encoder_model.onnx", 5, SHA))
    made = PackageManifest("x", "native", SHA, "org/name@rev", "apache-2.0", {"fp32": PackagedVariant(SHA, gates)}, files)
    raw = json.loads(
        json.dumps({**made.__dict__, "variants": {"fp32": {"digest": SHA, "gates": gates}}, "files": [e.__dict__ for e in files]})
    )
    return [{**raw, "digest": made.digest}]


def read_package_manifest(case: Any, folder: Path) -> None:
    """The digest in the file follows the content, as an attacker writes it."""
    text = _text(case)
    try:
        raw = json.loads(text)
        raw["digest"] = digest_json({key: value for key, value in raw.items() if key != "digest"})
        text = json.dumps(raw).encode()
    except Exception:
        pass  # the reader must cope by itself
    (folder / "manifest.json").write_bytes(text)
    found = PackageManifest.read(folder)
    check_types(found)
    _check_entries(found.files)


def specs() -> list[Any]:
    return [json.loads(json.dumps(checkpoint._spec(config).to_dict())) for config in configs()]


def read_spec(case: Any, folder: Path) -> None:
    raw = json.loads(_text(case)) if not isinstance(case, bytes) else _loaded(case)
    if not isinstance(raw, dict):
        return
    spec = ModelSpec.from_dict(raw)
    check_types(spec)
    assert spec.frame_seconds > 0 and spec.encoder.n_layers > 0
    assert ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def _loaded(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def token_texts() -> list[bytes]:
    pieces = ["<unk>", "▁the", "▁", "s", "<0xE2>", "<0x82>", "<0xAC>", "<en-US>", "é"]
    return ["".join(f"{piece} {i}\n" for i, piece in enumerate(pieces)).encode()]


def read_token_file(text: bytes, folder: Path) -> None:
    path = folder / "tokens.txt"
    path.write_bytes(text)
    pieces = read_tokens(path)
    text_of_all = detokenize(pieces, range(len(pieces)))
    text_of_all.encode()
    split_tags(text_of_all)
    tag_tokens(pieces)
    assert not any(map(has_controls, pieces))


def mutate_tokens(rng: Random, seeds: Any) -> bytes:
    if rng.random() < 0.5:
        lines = seeds[0].decode().splitlines()
        at = rng.randrange(len(lines))
        lines[at] = f"{rng.choice(TEXTS)} {rng.choice((at, at, at, '٣', '1' * 5000, '', '+3', '03'))}"
        return "\n".join(lines).encode("utf-8", "surrogatepass")
    return mutated_bytes(
        rng,
        seeds[0],
        seeds,
        (b"<0xZZ> 3\n", b"<0x-1>", b"<0x 1>", "\u2028".encode(), b"\x85", b"\x0b", b"\xff", b" ", b"\n", b"\r"),
    )


def mutate_json(rng: Random, seeds: Any) -> bytes:
    return mutated_json(rng, rng.choice(seeds), [json.dumps(seeds[0]).encode()])


TARGETS = (
    Target("manifest", manifests, mutate_json, read_manifest, 120),
    Target("package-manifest", package_manifests, mutate_json, read_package_manifest, 80),
    Target("spec", specs, mutate_json, read_spec, 120),
    Target("tokens", token_texts, mutate_tokens, read_token_file, 150),
)
