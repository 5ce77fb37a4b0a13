"""Checkpoints: the archive, the YAML text, the config and the weights in it."""

from __future__ import annotations

import gzip
import io
import json
import posixpath
import tarfile
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import yaml

from fuzz.engine import Target
from fuzz.mutate import NAMES, NUMBERS, mutated_bytes, mutated_value, odd_value
from fuzz.typed import check_types
from nemoport.errors import ArtifactError, CheckpointError
from nemoport.export import archive, bounded_yaml, checkpoint
from nemoport.export.containers.container import Contents
from nemoport.export.containers.nemo import NemoFile
from nemoport.export.containers.torch_header import read_header
from nemoport.spec import ModelSpec
from nemoport.text import has_controls
from nemoport.validate.nemo_config import nemo_config

CHECKPOINTS = Path(__file__).parents[2] / "reference" / "checkpoints"
KINDS = ("streaming-en", "streaming-multilingual", "offline-tdt")
UNREAD = ("train_ds", "validation_ds", "test_ds", "optim", "spec_augment", "interctc", "variational_noise")
BLOCK = 512
SWITCHES = {  # keys of NeMo's config that are no numbers
    "compute_eval_loss", "blank_as_pad", "return_best_hypothesis", "score_norm", "use_cuda_graph_decoder", "strip_lang_tags",
    "causal_downsampling", "untie_biases", "use_bias", "xscaling", "fuse_loss_wer", "log_prediction", "initialize_prompt_feature",
    "exact_pad", "log", "add_blank",
}  # fmt: skip
Member = tuple[str, bytes, dict[str, Any]]  # name, data, fields of its header

YAML_TAGS = ("int", "float", "bool", "null", "timestamp", "binary", "str")
# Tags and texts by which YAML makes something else than what stands there.
YAML_PIECES = (
    *(f"!!{tag} {text}" for tag in YAML_TAGS for text in ('""', "x", "1:1", "0x")),
    "!!set {a, b}", "!!omap [a: 1]", "!!pairs [a: 1]", "!!python/object/apply:os.system [x]", "!x y", "&a [*a]", "*a", "&a x",
    "<<: {a: 1}", "? [a]", "? {a: 1}", "2001-99-99", "2001-01-01T00:00:00+99:99", "1:59:59.5", "0b", "0o9", "0x" + "f" * 5000,
    "1" + ":1" * 300, "1" + ":1" * 200_000, "[" * 3000 + "]" * 3000, ".inf", ".nan", "-", ": ", "|", ">", "%YAML 9.9\n---",
    "---", "...", "\t", "[" * 60, "{a: " * 50,
    "9" * 5000, "=", "~", "'", '"\\ud800"', '"\\x1b"', "1e400", "1_000", "null", "true", "\ufeff",
)  # fmt: skip


@lru_cache
def config_of(name: str) -> dict:
    """The config of a reference checkpoint with a few of its tokens, and without what training alone reads."""
    with archive.opened(CHECKPOINTS / f"{name}.nemo") as opened:
        config = bounded_yaml.load(opened.read(archive.CONFIG, bounded_yaml.MOST_BYTES))
    for key in UNREAD:
        config.pop(key, None)
    config["joint"]["vocabulary"] = config["joint"]["vocabulary"][:8]
    config["decoder"]["vocab_size"] = config["joint"]["num_classes"] = 8
    if names := (config.get("model_defaults") or {}).get("prompt_dictionary"):
        config["model_defaults"]["prompt_dictionary"] = dict(list(names.items())[:4])
    config["tokenizer"] = {"model_path": "nemo:tokenizer.model"}
    return json.loads(json.dumps(config))


@lru_cache
def configs() -> list[dict]:
    return [config_of(name) for name in KINDS]


@lru_cache
def texts() -> list[bytes]:
    return [yaml.safe_dump(config, sort_keys=False).encode() for config in configs()]


def check_accepted(read: checkpoint.Checkpoint, folder: Path) -> None:
    """Asserts that an accepted checkpoint has the types that it states, and a config for NeMo without anything of its own."""
    check_types(read.spec)
    try:
        again = ModelSpec.from_dict(json.loads(json.dumps(read.spec.to_dict())))
    except ArtifactError as error:
        raise AssertionError(f"a spec that a build cannot hold: {error.found}") from error
    assert again == read.spec
    assert not any(has_controls(piece) for piece in read.tokens)
    if read.tokenizer:
        (folder / "nemo").mkdir()
        made = {k: v for k, v in nemo_config(read, folder / "nemo").items() if k != "tokenizer"}
        bare = json.loads(json.dumps(made, allow_nan=False))
        for section in ("joint", "decoder"):  # pieces are texts of any kind, which NeMo follows nowhere
            bare.get(section, {}).pop("vocabulary", None)
        text = json.dumps(bare)
        assert "nemo:" not in text and text.count("_target_") == (4 if "joint" in made else 3)
        for key, value in _leaves("", made):
            assert not isinstance(value, int | float) or abs(value) <= 1_000_000, f"{key} {value} has no bounds"
            assert isinstance(value, bool) == (key in SWITCHES), f"{key} is {value}"


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yields the values of a config that are no mapping and no list, each with the key that it stands below."""
    inner = value.items() if isinstance(value, dict) else ((key, one) for one in value) if isinstance(value, list) else ()
    for name, one in inner:
        yield from _leaves(name, one)
    if not isinstance(value, dict | list):
        yield key, value


def read_config(config: Any, folder: Path) -> None:
    path = folder / "x.nemo"
    path.touch()
    try:  # the tokenizer is that of the vocabulary, so that more is read behind it
        model = sentencepiece_model(config["joint"]["vocabulary"])
    except Exception:
        model = sentencepiece_model(configs()[0]["joint"]["vocabulary"])
    with mock.patch.object(NemoFile, "read", lambda self: Contents("", config, model)):
        if isinstance(config, dict):  # what bounded_yaml.load gives is checked in NemoFile.read
            check_accepted(checkpoint.read_checkpoint(str(path)), folder)


def mutate_config(rng: Random, seeds: Any) -> Any:
    def odd(rng: Random) -> Any:
        return odd_value(rng) if rng.random() < 0.9 else rng.choice((b"\0", {1: 2}, {None: 1}, {True: [1]}, set("ab"), 2**20_000))

    return mutated_value(rng, rng.choice(seeds), odd)


def read_yaml(text: bytes, folder: Path) -> None:
    try:
        bounded_yaml.load(text)
    except ValueError as error:  # as its description says
        raise CheckpointError("refused") from error


def mutate_yaml(rng: Random, seeds: Any) -> bytes:
    kind = rng.random()
    if kind < 0.1:
        return yaml.dump(mutated_value(rng, {"a": 1, "b": [1, {"c": "x"}]}), allow_unicode=True).encode("utf-8", "surrogatepass")
    pieces = [piece.encode("utf-8", "surrogatepass") for piece in rng.sample(YAML_PIECES, 4)]
    if kind < 0.3:
        return b"\n".join(b"k%d: %s" % (i, piece) for i, piece in enumerate(pieces))
    text = rng.choice(seeds)
    start = rng.randrange(len(text))
    return mutated_bytes(rng, text[start : start + 700], seeds[:1], pieces)


def pack(members: list[Member], zipped: bool = False, form: int = tarfile.PAX_FORMAT) -> bytes:
    """A .nemo file of members, whatever they are."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form, errors="surrogatepass") as tar:
        for name, data, header in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            for key, value in header.items():
                setattr(entry, key, value)
            tar.addfile(entry, io.BytesIO(data) if data else None)
    return gzip.compress(stream.getvalue(), 1, mtime=0) if zipped else stream.getvalue()


@lru_cache
def seed_members() -> list[Member]:
    small = texts()[0]
    model = sentencepiece_model(configs()[0]["joint"]["vocabulary"])
    return [("./model_config.yaml", small, {}), ("./tokenizer.model", model, {}), ("./model_weights.ckpt", weights()[0], {})]


def sentencepiece_model(pieces: list[str]) -> bytes:
    """The bytes of a SentencePiece model of these pieces: messages `pieces` (field 1) of `piece` (field 1)."""

    def field(content: bytes) -> bytes:
        assert len(content) < 128  # the length is one byte
        return b"\x0a" + bytes([len(content)]) + content

    return b"".join(field(field(piece.encode())) for piece in pieces)


@lru_cache
def archives() -> list[bytes]:
    return [pack(seed_members()), pack(seed_members(), True), pack(seed_members(), form=tarfile.GNU_FORMAT)]


def read_archive(data: bytes, folder: Path) -> None:
    """Reads all as `nemoport kind` does; where NeMo or tar would read other bytes for a name, that is a fault."""
    path = folder / "x.nemo"
    path.write_bytes(data)
    check_accepted(checkpoint.read_checkpoint(str(path)), folder)
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)) as tar:
        entries = [entry for entry in tar if not entry.isdir()]
    names = [posixpath.normpath(entry.name) for entry in entries]
    assert len(names) == len(set(names)), "a name twice"
    assert all(entry.isfile() for entry in entries), "a link or a device"
    assert not any(name.startswith("/") or ".." in name.split("/") for name in names), "a name outside of the archive"


def mutate_archive(rng: Random, seeds: Any) -> bytes:
    zipped = rng.random() < 0.15
    if rng.random() < 0.45:
        data = bytearray(rng.choice((seeds[0], seeds[2])))
        if rng.random() < 0.6:  # a header that tarfile takes for whole
            data = bytearray(_edited_header(rng, data))
        else:
            data = bytearray(mutated_bytes(rng, bytes(data), seeds))
        return gzip.compress(bytes(data), 1, mtime=0) if zipped else bytes(data)
    if rng.random() < 0.1:
        return mutated_bytes(rng, seeds[1], seeds)
    members = list(seed_members())
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(members) + 1)
        name, data, header = rng.choice(members)
        kind = rng.randrange(6)
        if kind == 0:
            members.insert(at, (rng.choice((name, *NAMES)), data, header))
        elif kind == 1 and len(members) > 1:
            members.pop(at % len(members))
        elif kind == 2:
            types = b"0123456789gxLKSV\0"
            members.insert(
                at, (name, b"", {"type": types[(k := rng.randrange(len(types))) : k + 1], "linkname": rng.choice(NAMES)})
            )
        elif kind == 3:
            members.insert(at, (name, mutated_bytes(rng, data), header))
        elif kind == 4:
            keys = (
                "size",
                "path",
                "linkpath",
                "GNU.sparse.map",
                "GNU.sparse.major",
                "GNU.sparse.realsize",
                "hdrcharset",
                "mtime",
                "uid",
            )
            value = rng.choice(("-1", "0", "9" * 20, "1e400", "x", *NAMES)).replace("\0", "")
            members.insert(at, (name, data, {"pax_headers": {rng.choice(keys): value, "comment": "x"}}))
        else:
            members[at % len(members)] = (name, mutated_bytes(rng, data), header)
    try:
        return pack(members, zipped)
    except (ValueError, OverflowError, TypeError):
        return pack(seed_members()[:2], zipped)


def _edited_header(rng: Random, data: bytearray) -> bytes:
    """Edits a field of a header and mends its checksum."""
    starts = [at for at in range(0, len(data), BLOCK) if data[at + 257 : at + 262] == b"ustar"]
    at = rng.choice(starts)
    field, size = rng.choice(
        ((0, 100), (100, 8), (108, 8), (124, 12), (124, 12), (124, 12), (136, 12), (156, 1), (156, 1), (157, 100), (345, 155))
    )
    value = rng.choice(
        (
            b"%0*o\0" % (max(size - 1, 1), rng.choice((0, 1, 511, 512, 513, 2**20, 2**33 - 1))),
            bytes([rng.choice((0x80, 0xFF))]) + rng.choice(NUMBERS).to_bytes(16, "big", signed=True)[-(size - 1) or 16 :],
            rng.randbytes(size),
            b"-1",
            b"..\0",
            bytes([rng.choice(b"0123456789gxLKSV\0")]),
        )
    )[:size]
    data[at + field : at + field + len(value)] = value
    total = sum(data[at : at + 148]) + 256 + sum(data[at + 156 : at + BLOCK])
    data[at + 148 : at + 156] = b"%06o\0 " % total
    return bytes(data)


@lru_cache
def weights() -> list[bytes]:
    """Small weights as torch saves them; without torch, a text that no one reads."""
    try:
        import torch
    except ImportError:
        return [b"weights"]
    stream = io.BytesIO()
    torch.save({"encoder.weight": torch.arange(6.0).reshape(2, 3), "half": torch.ones(4, dtype=torch.float16)}, stream)
    return [stream.getvalue()]


def read_weights(data: bytes, folder: Path) -> None:
    import torch

    path = folder / "x.nemo"
    path.write_bytes(pack([("model_config.yaml", b"", {}), ("model_weights.ckpt", data, {})], form=tarfile.GNU_FORMAT))
    found = checkpoint.Checkpoint(path, "", None, {}, (), b"").load_weights()  # type: ignore[arg-type]
    assert all(isinstance(name, str) and tensor.dtype == torch.float32 for name, tensor in found.items())
    assert sum(tensor.numel() for tensor in found.values()) <= 4 * len(data)


def read_weight_header(data: bytes, folder: Path) -> None:
    try:
        found = read_header(io.BytesIO(data))
    except ValueError as error:  # as its description says
        raise CheckpointError(str(error)) from error
    assert all(isinstance(name, str) and type(tensor.size) is int and tensor.size >= 0 for name, tensor in found.items())


def mutate_weights(rng: Random, seeds: Any) -> bytes:
    """Mutates the whole, or the pickle in it with its checksum mended."""
    if rng.random() < 0.3:
        return mutated_bytes(rng, seeds[0])
    stream = io.BytesIO()
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(io.BytesIO(seeds[0])) as old, zipfile.ZipFile(stream, "w", method) as new:
        for entry in old.infolist():
            part = old.read(entry)
            if entry.filename.endswith("data.pkl") or rng.random() < 0.1:
                codes = (
                    b"c",
                    b"R",
                    b"cos\nsystem\n",
                    b"ctorch\nload\n",
                    b"ccollections\nOrderedDict\n",
                    b"\x85",
                    b"K\xff",
                    b"\x8a\x08" + b"\x7f" * 8,
                    b"(",
                    b"t",
                    b"u",
                    b".",
                )
                part = mutated_bytes(rng, part, (), codes)
            new.writestr(entry.filename if rng.random() < 0.97 else "x", part)
    return stream.getvalue()


TARGETS = (
    Target("archive", archives, mutate_archive, read_archive, 40),
    Target("yaml", texts, mutate_yaml, read_yaml, 150),
    Target("config", configs, mutate_config, read_config, 120),
    Target("weights", weights, mutate_weights, read_weights, 20),
    Target("weight-header", weights, mutate_weights, read_weight_header, 20),
)
