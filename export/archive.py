"""The members of a .nemo file, which is a tar, and the one error for a damaged one.

A checkpoint may come from a stranger. What stands here holds before any library reads a member: each name once, nothing but
files and folders inside the archive, and no more bytes than the file on disk can honestly hold.
"""

from __future__ import annotations

import contextlib
import gzip
import posixpath
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from nemoport.errors import CheckpointError
from nemoport.export.other_files import no_member, other_file
from nemoport.text import clipped

CONFIG = "model_config.yaml"
WEIGHTS = "model_weights.ckpt"
MOST_MEMBERS = 1000  # NeMo writes one for the config, one for the weights and a few for each tokenizer
MOST_EXPANSION = 4  # float weights shrink by a tenth in gzip; a text, of which there is little, by five
EXPANSION_START = 64 << 20  # bytes that any gzipped file may have, so that a small one is not judged by its texts

# What tarfile and zlib raise for a damaged or a hostile archive; older .nemo files are gzipped.
_DAMAGE = (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, OverflowError, RecursionError, MemoryError)


class Archive:
    """The members of an open .nemo file by name, without the ./ that NeMo writes before them."""

    def __init__(self, tar: tarfile.TarFile, path: Path):
        self._tar, self._path = tar, path
        self.entries: dict[str, tarfile.TarInfo] = {}
        for count, entry in enumerate(tar):  # walks to the end, which finds a truncated file
            name = posixpath.normpath(entry.name)
            if count >= MOST_MEMBERS:
                raise unreadable(path, f"more than {MOST_MEMBERS} members")
            if entry.isdir() and not _leaves(name):
                continue
            if not entry.isfile() or entry.issparse() or _leaves(name):
                raise unreadable(
                    path, f"a member {clipped(entry.name)} that is a link, a device, sparse or outside of the archive"
                )
            if name in self.entries:
                raise unreadable(path, f"two members {clipped(name)}")
            self.entries[name] = entry

    def member(self, name: str) -> IO[bytes]:
        """Opens one member as a seekable stream. Raises CheckpointError if there is none."""
        entry = self.entries.get(posixpath.normpath(name))
        stream = self._tar.extractfile(entry) if entry else None
        if stream is None:
            raise unreadable(self._path, *no_member(clipped(name), list(self.entries)))
        return stream

    def read(self, name: str, most_bytes: int) -> bytes:
        """Reads one member. Raises CheckpointError if there is none, or if it has more than `most_bytes`."""
        with self.member(name) as stream:
            content = stream.read(most_bytes + 1)
        if len(content) > most_bytes:
            raise unreadable(self._path, f"{clipped(name)} of more than {most_bytes} bytes")
        return content


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """Opens a .nemo file, a tar or a gzipped tar. Raises CheckpointError, also for damage that is found within the block."""
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            source = _BoundedGzip(path) if zipped else file
            with contextlib.closing(source), tarfile.open(path, "r:", fileobj=source) as tar:
                archive = Archive(tar, path)
                while zipped and source.read(1 << 20):  # to the end, where the checksum of it all is
                    pass
                yield archive
    except _DAMAGE as error:
        if known := other_file(path):
            what, todo = known
            raise unreadable(path, clipped(what), todo) from error
        raise unreadable(path, clipped(str(error) or type(error).__name__)) from error


def unreadable(path: Path, found: str, todo: str = "download or save it again") -> CheckpointError:
    """The error for a file that is damaged or no .nemo. found: what is wrong with it."""
    return CheckpointError(
        f"{path} cannot be read.",
        expected=f"a complete .nemo file (a tar with {CONFIG} and {WEIGHTS})",
        found=found,
        todo=todo,
    )


def _leaves(name: str) -> bool:
    return name.startswith("/") or name.split("/")[0] == ".."


class _BoundedGzip(gzip.GzipFile):
    """A gzipped file that refuses to give more bytes than a checkpoint of its size on disk can have."""

    def __init__(self, path: Path):
        super().__init__(path, "rb")
        self._most = EXPANSION_START + MOST_EXPANSION * path.stat().st_size

    def read(self, size: int | None = -1) -> bytes:
        left = self._most - self.tell()
        content = super().read(min(size, left + 1) if size is not None and size >= 0 else left + 1)
        if len(content) > left:
            raise ValueError(f"more than {self._most} bytes in a gzipped file that has {Path(self.name).stat().st_size}")
        return content

    def seek(self, offset: int, whence: int = 0) -> int:
        if offset < 0:
            raise ValueError("a member that ends before it begins")
        if offset > self._most:
            raise ValueError(f"a member that ends behind byte {self._most}, the most that this gzipped file may have")
        return super().seek(offset, whence)
