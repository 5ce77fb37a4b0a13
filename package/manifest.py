"""manifest.json of a package: what it was made from, what was measured, and every file with its size and hash.

SHA256SUMS repeats the hashes, and adds that of manifest.json, for `sha256sum -c`. model.sig, where there is one, signs them all.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from nemoport.artifact import MOST_FILES, FileEntry
from nemoport.errors import ArtifactError
from nemoport.files import digest_json, read_json, sha256_file, write_bytes, write_json
from nemoport.schema import CLOSED, Name, Sha256, Text, check, most
from nemoport.text import clipped, lines

SCHEMA: Literal[1] = 1
NAME, SUMS, SIGNATURE, SBOM = "manifest.json", "SHA256SUMS", "model.sig", "sbom.cdx.json"
BESIDE = (NAME, SUMS, SIGNATURE)  # what the manifest does not list
# What the Hub and huggingface_hub put into a folder that they serve or download.
ATTRIBUTES = ".gitattributes"
_RECORDS = re.compile(r"\.cache/huggingface/(\.gitignore|CACHEDIR\.TAG|download/[^:\\]+\.(metadata|lock))")
_MOST_ATTRIBUTES = 1 << 16  # bytes of that file; the Hub's has two thousand
_LARGE_FILE = re.compile(r"[\w.*/\[\]-]+ filter=lfs diff=lfs merge=lfs -text")  # a line that the Hub writes


@dataclass(frozen=True)
class PackagedVariant:
    """Record of one variant. digest: of its own manifest; gates: its gate results as they were recorded (JSON objects)."""

    __pydantic_config__: ClassVar = CLOSED

    digest: Sha256
    gates: Annotated[tuple[dict[str, Any], ...], most(1000)]


@dataclass(frozen=True)
class PackageManifest:
    """Record of a package: origin, licence, variants and files."""

    __pydantic_config__: ClassVar = CLOSED

    name: Text  # of the checkpoint
    layout: Name  # name of the package layout, see layouts/
    checkpoint_sha256: Sha256
    base_model: Text  # Hub id, with @revision where it is known; "" where there is none
    licence: Text
    variants: Annotated[dict[Name, PackagedVariant], most(256, least=1)]
    # Sorted by path, relative to the package; all but this one.
    files: Annotated[tuple[FileEntry, ...], most(MOST_FILES, least=1)] = field(repr=False)
    schema: Literal[1] = SCHEMA

    @property
    def digest(self) -> str:
        """Digest of every field. It is written beside them, so that an edit shows."""
        return digest_json(asdict(self))

    def write(self, folder: Path) -> None:
        """Writes manifest.json and SHA256SUMS. Raises OutputError."""
        write_json(folder / NAME, {**asdict(self), "digest": self.digest})
        write_bytes(folder / SUMS, self.sums(folder).encode())

    def sums(self, folder: Path) -> str:
        """Returns SHA256SUMS of the package in `folder`: every file but itself and the signature."""
        hashes = {entry.path: entry.sha256 for entry in self.files} | {NAME: sha256_file(folder / NAME)}
        return "".join(f"{hashes[path]}  {path}\n" for path in sorted(hashes))

    @staticmethod
    def read(folder: Path) -> PackageManifest:
        """Reads the manifest in `folder`. Raises ArtifactError: missing, not JSON, of another schema, or edited."""
        path = folder / NAME
        raw = read_json(path, "name the folder of a package; make one with `nemoport package`")
        recorded = raw.pop("digest", None)
        manifest: PackageManifest = check(PackageManifest, raw, str(path), _AGAIN)
        if recorded != manifest.digest:
            raise _damaged(path, manifest.digest, clipped(repr(recorded)))
        if len({entry.path for entry in manifest.files}) < len(manifest.files):
            raise _damaged(path, "each file once", "a file twice")
        return manifest


_AGAIN = "download the package again, or make it again with `nemoport package`"


def _damaged(path: Path, expected: str, found: str) -> ArtifactError:
    return ArtifactError(
        f"{path} is damaged, or not of a package.",
        expected=expected,
        found=found,
        todo=_AGAIN,
    )


def list_files(folder: Path) -> list[str]:
    """Returns the sorted paths of a package's files, relative to it, without those of BESIDE and what the Hub adds. A link is
    one, and so is everything else that is no folder."""
    own = (path for path in _walk(folder, "") if not (path in BESIDE and is_plain(folder / path)))
    paths = (path for path in own if not _of_the_hub(folder, path))
    return sorted(paths)


def is_plain(path: Path) -> bool:
    """Whether a path is a file itself, no link to one."""
    return stat.S_ISREG(path.lstat().st_mode)


def _walk(folder: Path, above: str) -> Iterator[str]:
    """Yields the path of all that is no folder. A link to a folder is not walked."""
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(folder / entry.name, f"{above}{entry.name}/")
        else:
            yield above + entry.name


def check_sums(folder: Path, manifest: PackageManifest) -> list[str]:
    """Returns what is wrong with SHA256SUMS. Packages without an SBOM are older than both."""
    path = folder / SUMS
    if not path.is_file():
        return [f"{SUMS}: missing"] if any(entry.path == SBOM for entry in manifest.files) else []
    expected = manifest.sums(folder).encode()
    same = path.stat().st_size == len(expected) and path.read_bytes() == expected
    return [] if same else [f"{SUMS}: not the hashes of the manifest"]


def _of_the_hub(folder: Path, path: str) -> bool:
    place = folder / path
    if not is_plain(place):
        return False
    if path != ATTRIBUTES:
        return _RECORDS.fullmatch(path) is not None
    # Git runs what this file names, where its user has set that up: only the lines of the Hub are known to be harmless.
    with open(place, "rb") as stream:
        content = stream.read(_MOST_ATTRIBUTES + 1)
    found = lines(content.decode(errors="replace"))
    return len(content) <= _MOST_ATTRIBUTES and all(_LARGE_FILE.fullmatch(line) for line in found)


def hash_files(folder: Path) -> tuple[FileEntry, ...]:
    """Returns path, size and sha256 of every file that `list_files` lists."""
    return tuple(FileEntry(p, (folder / p).stat().st_size, sha256_file(folder / p)) for p in list_files(folder))
