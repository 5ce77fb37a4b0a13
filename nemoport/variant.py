"""A variant to be built, and the manifest that records how: export, quantize and the targets all build variants with it."""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from nemoport.artifact import DECODER, ENCODER, Artifact, Manifest, Recipe, file_entries
from nemoport.errors import OutputError
from nemoport.files import new_folder, sweep_leftovers

FP32 = "fp32"
GRAPH_ROLES = {
    "encoder": ENCODER,
    "encoder_data": f"{ENCODER}.data",
    "decoder": DECODER,
    "decoder_data": f"{DECODER}.data",
}
TOOLS = ("nemoport", "torch", "onnx", "onnxruntime", "numpy", "openvino", "nncf", "litert-torch", "coreai-torch", "coremltools")


@dataclass(frozen=True)
class Variant:
    """A variant to be built: where, by which recipe, from which checkpoint, parent and calibration audio."""

    build: Path
    recipe: Recipe
    checkpoint_sha256: str
    parent_digest: str | None = None
    corpus_digest: str | None = None

    @property
    def folder(self) -> Path:
        """The variant's folder in the build folder."""
        return self.build / self.recipe.variant

    def existing(self) -> Artifact | None:
        """Opens the variant if it was built from the same inputs, returns None if it was not built.

        Raises OutputError if it was built from other inputs, ArtifactError if it is damaged.
        """
        if not self.is_built():
            return None
        artifact = Artifact.open(self.folder)
        artifact.verify_files()
        return artifact

    def is_built(self) -> bool:
        """Finds whether the variant was built from the same inputs. Raises OutputError if it was built from other inputs.

        What killed runs left in the build folder is removed first.
        """
        sweep_leftovers(self.build)
        if not (self.folder / "manifest.json").exists():
            return False
        found = Manifest.read(self.folder)
        inputs = (self.recipe.digest, self.checkpoint_sha256, self.parent_digest, self.corpus_digest)
        names = ("recipe", "checkpoint", "parent", "calibration audio")
        made = (found.recipe_digest, found.checkpoint_sha256, found.parent_digest, found.corpus_digest)
        differing = [name for name, one, other in zip(names, inputs, made, strict=True) if one != other]
        if differing:
            raise OutputError(
                f"{self.folder} exists already.",
                expected="nothing, or the same variant made from the same inputs",
                found=f"one made from another {', another '.join(differing)}",
                todo=f"remove {self.folder}, or choose another build folder",
            )
        return True

    def new_folder(self) -> AbstractContextManager[Path]:
        """Makes the variant's folder, see `nemoport.files.new_folder`; one that another run makes meanwhile stays."""
        return new_folder(self.folder, or_existing=True)

    def opened(self) -> Artifact:
        """Opens the variant that `new_folder` made, or another run. Raises OutputError if that one has other inputs."""
        self.is_built()
        return Artifact.open(self.folder)

    def write_manifest(self, folder: Path, roles: dict[str, str] = GRAPH_ROLES) -> Manifest:
        """Writes manifest.json into `folder`. roles: role -> path within `folder`, for each of its files. Raises OutputError."""
        manifest = Manifest(
            variant=self.recipe.variant,
            recipe=self.recipe,
            recipe_digest=self.recipe.digest,
            checkpoint_sha256=self.checkpoint_sha256,
            parent_digest=self.parent_digest,
            corpus_digest=self.corpus_digest,
            tools=_tools(),
            machine=instruction_set(),
            files=file_entries(folder, roles),
        )
        manifest.write(folder)
        return manifest


def instruction_set() -> str:
    """Names the processor's architecture and its extensions that integer kernels use, e.g. "x86_64 avx512_vnni"."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    known = ("avx2", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")
    return " ".join([platform.machine(), *(flag for flag in known if flag in flags)])


def _tools() -> dict[str, str]:
    """Finds the versions of those TOOLS that are installed: a machine that quantizes needs no torch."""
    found = {}
    for tool in TOOLS:
        with suppress(PackageNotFoundError):
            found[tool] = version(tool)
    return found
