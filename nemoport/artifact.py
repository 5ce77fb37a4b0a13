"""Build folders on disk: the variants in them, and the manifest of each.

build/<checkpoint name>/            laid out like the package that is made from it
    config.json                     model spec, cache shapes, chunk rules, for every variant
    shared/                         filterbank, tokens, tokenizer, front-end graph
    fp32/ fp16/ int8-dynamic/ ...   one folder a variant: graphs, weights, manifest.json
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator

from nemoport.buffered import ChunkContext
from nemoport.config import RuntimeConfig, read_config
from nemoport.errors import ArtifactError
from nemoport.files import digest_json, read_json, sha256_file, write_json
from nemoport.schema import CLOSED, Name, RelativePath, Sha256, Size, Text, check, most
from nemoport.spec import MOST_FRAMES, Lookahead, ModelSpec
from nemoport.text import clipped

SCHEMA: Literal[1] = 1
MOST_FILES = 10_000  # of a variant or a package
ENCODER, DECODER = "encoder_model.onnx", "decoder_model.onnx"
ONNXRUNTIME = "onnxruntime"


def _checked(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Checks what is read of a recipe before its graphs are opened."""
    target, lookahead = parameters.get("target", ONNXRUNTIME), parameters.get("lookahead")
    if not isinstance(target, str):
        raise ValueError("a target by its name is expected")
    if lookahead is not None and not (type(lookahead) is int and 0 <= lookahead <= MOST_FRAMES):
        raise ValueError("a lookahead in encoder frames is expected")
    return parameters


@dataclass(frozen=True)
class Recipe:
    """How a variant is made: its name, the variant that it is made from, its parameters. The digest names the build.

    parameters: fields of the frozen dataclass that a precision or a target states, and of a target its name.
    """

    __pydantic_config__: ClassVar = CLOSED

    variant: Name
    parent: Name | None
    parameters: Annotated[Mapping[str, Any], most(256), AfterValidator(_checked)] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return digest_json(asdict(self))

    @property
    def target(self) -> str:
        """Name of the runtime that the variant is made for: a module of nemoport/runtimes/."""
        return self.parameters.get("target", ONNXRUNTIME)

    @property
    def lookahead(self) -> int | None:
        """The one that graphs of fixed shapes are made for; None of graphs that serve every lookahead of the model."""
        return self.parameters.get("lookahead")

    @property
    def windows_s(self) -> tuple[int, ...]:
        """Seconds of the windows that graphs of fixed shapes of an offline model take, ascending; () of graphs that take any."""
        return tuple(self.parameters.get("windows_s", ()))


@dataclass(frozen=True)
class FileEntry:
    """A file of a variant, as its manifest records it. sha256: hexadecimal."""

    __pydantic_config__: ClassVar = CLOSED

    path: RelativePath  # to the variant's folder
    bytes: Size
    sha256: Sha256


@dataclass(frozen=True)
class Manifest:
    """The sources and the files of a variant; `manifest.json` in its folder."""

    __pydantic_config__: ClassVar = CLOSED

    variant: Name
    recipe: Recipe
    recipe_digest: Sha256
    checkpoint_sha256: Sha256
    parent_digest: Sha256 | None  # `Manifest.digest` of the parent variant
    corpus_digest: Sha256 | None  # of the calibration audio, where any was used
    tools: Annotated[dict[Name, Text], most(64)]
    machine: Text  # instruction set the build ran on; calibration figures can depend on it
    files: Annotated[dict[Text, FileEntry], most(MOST_FILES, least=1)]  # role -> file
    schema: Literal[1] = SCHEMA

    @property
    def digest(self) -> str:
        """Digest of all that determines the content: of everything but tools and machine."""
        return digest_json({k: v for k, v in asdict(self).items() if k not in ("tools", "machine")})

    def write(self, folder: Path) -> None:
        """Writes manifest.json. Raises OutputError."""
        write_json(folder / "manifest.json", asdict(self))

    @staticmethod
    def read(folder: Path) -> Manifest:
        """Reads manifest.json. Raises ArtifactError."""
        path, todo = folder / "manifest.json", "run `nemoport export` (fp32) or `nemoport quantize` (the others)"
        return check(Manifest, read_json(path, todo), str(path), "build or download the variant again")


@dataclass(frozen=True)
class Artifact:
    """One variant on disk, with the files that all variants of a build share."""

    folder: Path
    manifest: Manifest
    spec: ModelSpec

    @property
    def encoder(self) -> Path:
        return self.folder / ENCODER

    @property
    def decoder(self) -> Path:
        return self.folder / DECODER

    @property
    def shared(self) -> Path:
        return self.folder.parent / "shared"

    @property
    def lookaheads(self) -> tuple[Lookahead, ...]:
        """Lookaheads that the variant serves: all of the model's, or the one of its recipe, where the graphs have fixed
        shapes. The attention of a window is in the ONNX graphs alone."""
        recipe = self.manifest.recipe
        if recipe.lookahead is not None:
            return (recipe.lookahead,)
        windows = recipe.target == ONNXRUNTIME
        return tuple(one for one in self.spec.lookaheads if windows or not isinstance(one, ChunkContext))

    @property
    def longest_s(self) -> int | None:
        """Seconds of the longest recording that graphs of fixed shapes take at once; None of graphs that take any."""
        return max(self.manifest.recipe.windows_s, default=None)

    def config(self) -> RuntimeConfig:
        """Reads config.json. Raises ArtifactError."""
        return _read_config(self.folder)

    def filterbank(self) -> np.ndarray:
        """Reads f32 [n_mels, n_fft // 2 + 1] from shared/. Raises ArtifactError."""
        frontend = self.spec.frontend
        shape = (frontend.n_mels, frontend.n_fft // 2 + 1)
        path = self.shared / "filterbank.bin"
        values = np.fromfile(path, np.float32) if path.is_file() else np.zeros(0, np.float32)
        if values.size != shape[0] * shape[1]:
            raise ArtifactError(
                f"{path} is not this model's filterbank.",
                expected=f"{shape[0]} x {shape[1]} f32",
                found=f"{values.size} values" if path.is_file() else "no file",
                todo="export again, or keep shared/ beside the variants",
            )
        return values.reshape(shape)

    @staticmethod
    def open(folder: Path | str) -> Artifact:
        """Opens a variant's folder. Raises ArtifactError if a file is missing; `verify_files` checks the content."""
        folder = Path(folder)
        if not folder.is_dir():
            raise ArtifactError(
                f"There is no artifact at {folder}.",
                expected="a variant's folder such as build/streaming-en/fp32",
                found="nothing" if not folder.exists() else "a file",
                todo="run `nemoport export`, or name a folder of a downloaded package",
            )
        if variants := variants_in(folder):
            raise ArtifactError(
                f"{folder} holds several variants.",
                expected="the folder of one",
                found=clipped(", ".join(variants)),
                todo=f"name one, such as {folder / variants[0]}",
            )
        manifest = Manifest.read(folder)
        config = _read_config(folder)
        missing = [e.path for e in manifest.files.values() if not (folder / e.path).is_file()]
        if missing:
            raise ArtifactError(
                f"The artifact {folder} is incomplete.",
                expected=f"{len(manifest.files)} files, as its manifest.json lists",
                found=f"missing: {', '.join(missing)}",
                todo="build or download it again",
            )
        return Artifact(folder, manifest, ModelSpec.from_dict(config["spec"]))

    def verify_files(self) -> None:
        """Compares every file with its recorded size and sha256; raises ArtifactError naming all that differ."""
        verify_entries(self.folder, self.manifest.files.values())


def variants_in(folder: Path) -> list[str]:
    """Returns the folders of variants in a build or a package; none in the folder of a variant."""
    if not (folder / "config.json").is_file():
        return []
    return sorted(path.parent.name for path in folder.glob("*/manifest.json"))


def _read_config(folder: Path) -> RuntimeConfig:
    return read_config(folder.parent, "keep the variant's folder beside its config.json, or run `nemoport export` again")


def verify_entries(folder: Path, entries: Iterable[FileEntry]) -> None:
    """Compares files in `folder` with their recorded size and sha256; raises ArtifactError naming all that differ."""
    wrong = []
    for entry in entries:
        path = folder / entry.path
        if not path.is_file():
            wrong.append(f"{entry.path}: missing")
        elif path.stat().st_size != entry.bytes:
            wrong.append(f"{entry.path}: {path.stat().st_size} bytes, expected {entry.bytes}")
        elif sha256_file(path) != entry.sha256:
            wrong.append(f"{entry.path}: content differs from its sha256")
    if wrong:
        raise ArtifactError(
            f"{folder} is damaged.",
            expected="every file as its manifest.json records it",
            found="; ".join(wrong),
            todo="build or download it again",
        )


def file_entries(folder: Path, roles: dict[str, str]) -> dict[str, FileEntry]:
    """Records size and sha256 of files. roles: role -> path relative to `folder`."""
    return {role: FileEntry(path, (folder / path).stat().st_size, sha256_file(folder / path)) for role, path in roles.items()}
