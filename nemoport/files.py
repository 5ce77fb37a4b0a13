"""Files on disk: hashes, JSON, and files and folders that appear whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nemoport.errors import ArtifactError, OutputError


def sha256_file(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_json(value) -> str:
    """Returns the SHA-256 of a value as JSON with sorted keys, in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def read_json(path: Path, todo: str) -> dict:
    """Reads a file that holds one JSON object. todo: advice for the error's message. Raises ArtifactError."""
    expected = "a JSON object"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing.", expected=expected, found="no file", todo=todo) from error
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read.", expected=expected, found=str(error), todo=todo) from error
    except ValueError as error:  # also what is not UTF-8
        raise ArtifactError(f"{path} is not JSON.", expected=expected, found=str(error), todo=todo) from error
    if not isinstance(value, dict):
        raise ArtifactError(f"{path} holds something else.", expected=expected, found=f"a {type(value).__name__}", todo=todo)
    return value


def write_json(path: Path, value) -> None:
    """Writes a value as JSON, as `write_bytes` does."""
    write_bytes(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file beside its place, syncs and renames it, so that it appears whole or not at all. Raises OutputError."""
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


@contextmanager
def new_folder(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yields an empty folder beside `target` that takes its place when the block ends well, and vanishes otherwise.

    Raises OutputError if `target` exists (unless `replace`), or cannot be written.
    """
    if target.exists() and not replace:
        raise OutputError(
            f"{target} exists already.",
            expected="a new folder",
            found="one made by other inputs or an unknown one",
            todo="remove it, or choose another place",
        )
    made = [folder for folder in target.parents if not folder.exists()]
    with _explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        with _explained(target):
            yield work
            os.chmod(work, 0o755)
            for path in sorted(work.rglob("*")):
                if path.is_file():
                    with open(path, "rb+") as stream:  # Windows syncs only what is open for writing
                        os.fsync(stream.fileno())
            if target.exists():
                old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.old."))
                os.replace(target, old / "was")
                os.replace(work, target)
                shutil.rmtree(old)
            else:
                os.replace(work, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        for folder in made if not target.exists() else ():
            with suppress(OSError):  # another run has put something there
                folder.rmdir()


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Waits until no other process is within the block for this path. Leaves an empty file beside it. Raises OutputError."""
    import filelock

    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(f"{path}.lock")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def folder_once(folder: Path, fill: Callable[[Path], None]) -> None:
    """Makes `folder` with `fill` unless it exists: one process fills it while others that need it wait. Raises OutputError."""
    if folder.is_dir():
        return
    with exclusive_lock(folder):
        if not folder.is_dir():
            with new_folder(folder) as made:
                fill(made)


@contextmanager
def _explained(target: Path) -> Iterator[None]:
    """Turns an error of the file system (full, read-only, not a folder) into an OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{target} cannot be written.",
            expected="a writable place with enough room",
            found=f"{error.strerror or error}",
            todo="free space, fix its permissions, or choose another place",
        ) from error
