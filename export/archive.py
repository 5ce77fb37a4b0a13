"""The tar that a .nemo file is: its members, and one error for whatever is wrong with it."""

from __future__ import annotations

import tarfile
import zlib
from pathlib import Path

from nemoport.errors import CheckpointError

_DAMAGE = (tarfile.TarError, OSError, EOFError, zlib.error)  # older .nemo files are gzipped


def opened(path: Path) -> tarfile.TarFile:
    """For a `with`. Raises CheckpointError."""
    try:
        return tarfile.open(path)
    except _DAMAGE as error:
        raise unreadable(path, str(error)) from error


def member(tar: tarfile.TarFile, name: str):
    """A readable, seekable stream of one member. Raises CheckpointError if there is none or the archive is damaged."""
    try:
        for entry in tar.getmembers():  # walks to the end, which finds a truncated file; NeMo writes ./name
            if entry.name.removeprefix("./") == name and entry.isfile():
                return tar.extractfile(entry)
    except _DAMAGE as error:
        raise unreadable(Path(tar.name), f"{name}: {error}") from error
    raise unreadable(Path(tar.name), f"no {name} in it")


def unreadable(path: Path, found: str) -> CheckpointError:
    return CheckpointError(
        f"{path} cannot be read.",
        expected="a complete .nemo file (a tar with model_config.yaml and model_weights.ckpt)",
        found=found,
        todo="download or save it again",
    )
