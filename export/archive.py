"""The members of a .nemo file, which is a tar, and the one error for a damaged one."""

from __future__ import annotations

import tarfile
import zlib
from pathlib import Path
from typing import IO

from nemoport.errors import CheckpointError

_DAMAGE = (tarfile.TarError, OSError, EOFError, zlib.error)  # older .nemo files are gzipped


def opened(path: Path) -> tarfile.TarFile:
    """Opens a .nemo file, for a `with` statement. Raises CheckpointError."""
    try:
        return tarfile.open(path)
    except _DAMAGE as error:
        raise unreadable(path, str(error)) from error


def member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    """Opens one member as a seekable stream. Raises CheckpointError if there is none or the archive is damaged."""
    path = Path(str(tar.name))  # `opened` gave it one; the annotation allows archives without
    try:
        for entry in tar.getmembers():  # walks to the end, which finds a truncated file; NeMo writes ./name
            named = entry.name.removeprefix("./") == name and entry.isfile()
            if named and (stream := tar.extractfile(entry)) is not None:
                return stream
    except _DAMAGE as error:
        raise unreadable(path, f"{name}: {error}") from error
    raise unreadable(path, f"no {name} in it")


def unreadable(path: Path, found: str) -> CheckpointError:
    """The error for a damaged .nemo file. found: what is wrong with it."""
    return CheckpointError(
        f"{path} cannot be read.",
        expected="a complete .nemo file (a tar with model_config.yaml and model_weights.ckpt)",
        found=found,
        todo="download or save it again",
    )
