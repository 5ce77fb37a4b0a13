"""manifest.json of a package: what it was made from, what was measured, and every file with its size and hash."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from nemoport.artifact import FileEntry
from nemoport.errors import ArtifactError
from nemoport.files import digest_json, read_json, sha256_file, write_json

SCHEMA = 1
NAME = "manifest.json"
# What git, the Hub and huggingface_hub put into a folder that they serve or download.
FOREIGN_FILES, FOREIGN_FOLDERS = {".gitattributes"}, {".git", ".cache"}


@dataclass(frozen=True)
class PackagedVariant:
    """Record of one variant. digest: of its own manifest; gates: its gate results as they were recorded (JSON objects)."""

    digest: str
    gates: tuple[dict, ...]


@dataclass(frozen=True)
class PackageManifest:
    """Record of a package: origin, licence, variants and files."""

    name: str  # of the checkpoint
    layout: str  # name of the package layout, see layouts/
    checkpoint_sha256: str
    base_model: str  # Hub id, with @revision where it is known; "" where there is none
    licence: str
    variants: dict[str, PackagedVariant]
    files: tuple[FileEntry, ...] = field(repr=False)  # sorted by path, relative to the package; all but this one
    schema: int = SCHEMA

    @property
    def digest(self) -> str:
        """Digest of every field. It is written beside them, so that an edit shows."""
        return digest_json(asdict(self))

    def write(self, folder: Path) -> None:
        write_json(folder / NAME, {**asdict(self), "digest": self.digest})

    @staticmethod
    def read(folder: Path) -> PackageManifest:
        """Reads the manifest in `folder`. Raises ArtifactError: missing, not JSON, of another schema, or edited."""
        path = folder / NAME
        raw = read_json(path, "name the folder of a package; make one with `nemoport package`")
        try:
            recorded = raw.pop("digest")
            manifest = PackageManifest._of(raw)
            found = manifest.digest
        except (KeyError, TypeError, AttributeError) as error:
            raise _damaged(path, f"a package manifest of schema {SCHEMA}", f"{type(error).__name__}: {error}") from error
        if recorded != found:
            raise _damaged(path, recorded, found)
        return manifest

    @staticmethod
    def _of(raw: dict) -> PackageManifest:
        variants = {name: PackagedVariant(one["digest"], tuple(one["gates"])) for name, one in raw["variants"].items()}
        return PackageManifest(**{**raw, "variants": variants, "files": tuple(FileEntry(**entry) for entry in raw["files"])})


def _damaged(path: Path, expected: str, found: str) -> ArtifactError:
    return ArtifactError(
        f"{path} is damaged, or not of a package.",
        expected=expected,
        found=found,
        todo="download the package again, or make it again with `nemoport package`",
    )


def list_files(folder: Path) -> list[str]:
    """Returns the sorted paths of a package's files, relative to it, without its manifest and what the Hub adds."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
    own = (path for path in paths if path.parts[0] not in FOREIGN_FOLDERS and path.name not in FOREIGN_FILES)
    return sorted(path.as_posix() for path in own if path != Path(NAME))


def hash_files(folder: Path) -> tuple[FileEntry, ...]:
    """Returns path, size and sha256 of every file that `list_files` lists."""
    return tuple(FileEntry(p, (folder / p).stat().st_size, sha256_file(folder / p)) for p in list_files(folder))
