"""Files on disk: hashes, JSON, and files and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from nemoport.errors import ArtifactError, NemoportError, OutputError
from nemoport.partial import partial_folder, sweep

_BUILD_DEPTH = 3  # of the folders in a build, such as datasets/DIGEST/LANGUAGE
_CONTENT = "content"  # of a partial folder, beside its lock
_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))  # Windows has no EDQUOT
MOST_JSON_BYTES = 64 << 20  # the largest that is written, a vocabulary of 65,536 pieces, has a few MB
MOST_JSON_DEPTH = 64


def sha256_file(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_json(value) -> str:
    """Returns the SHA-256 of a value as JSON with sorted keys, in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def read_json(path: Path, todo: str) -> dict:
    """Reads a file that holds one JSON object, each key once. todo: advice for the error's message. Raises ArtifactError."""
    expected = "a JSON object"
    try:
        with open(path, "rb") as stream:
            content = stream.read(MOST_JSON_BYTES + 1)
        if len(content) > MOST_JSON_BYTES:
            raise ValueError(f"more than {MOST_JSON_BYTES} bytes")
        value = json.loads(content.decode(), object_pairs_hook=_each_once)
        _check_depth(value)
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing.", expected=expected, found="no file", todo=todo) from error
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read.", expected=expected, found=str(error), todo=todo) from error
    except (ValueError, RecursionError) as error:  # also what is not UTF-8, and what is nested without end
        raise ArtifactError(f"{path} is not JSON.", expected=expected, found=str(error), todo=todo) from error
    if not isinstance(value, dict):
        raise ArtifactError(f"{path} holds something else.", expected=expected, found=f"a {type(value).__name__}", todo=todo)
    return value


def _each_once(pairs: list[tuple[str, Any]]) -> dict:
    """Readers differ in which of two values of a key they take: what one of them checks, another would not read."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object that has a key twice")
    return found


def _check_depth(value: Any) -> None:
    """Whoever copies or writes a value recurses into it."""
    level = [value]
    for _ in range(MOST_JSON_DEPTH):
        inner = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        if not (level := [one for part in inner for one in part]):
            return
    raise ValueError(f"more than {MOST_JSON_DEPTH} levels")


def write_json(path: Path, value) -> None:
    """Writes a value as JSON, as `write_bytes` does."""
    write_bytes(path, json_bytes(value))


def json_bytes(value) -> bytes:
    """Returns a value as JSON, indented, with sorted keys."""
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file beside its place, syncs and renames it, so that it appears whole or not at all. Raises OutputError.

    A file that has this content already stays, so that a finished build can be on a read-only disk.
    """
    with _explained(path):
        if path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        with partial_folder(path.parent, path.name) as partial:
            work = partial / _CONTENT
            with open(work, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            work.chmod(0o644)
            os.replace(work, path)


@contextmanager
def new_folder(target: Path, *, or_existing: bool = False) -> Iterator[Path]:
    """Yields an empty folder beside `target` that takes its place when the block ends well, and vanishes otherwise.

    What a killed run left of its own is removed first. Raises OutputError if `target` exists or cannot be written. Where another
    run makes `target` meanwhile, that one stays: with `or_existing` in silence, else with an OutputError.
    """
    sweep(target.parent)
    if target.exists():
        raise _exists(target)
    made = [folder for folder in target.parents if not folder.exists()]
    try:
        with _explained(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with partial_folder(target.parent, target.name) as partial, _full_disk_explained(target, partial):
                work = partial / _CONTENT
                work.mkdir(mode=0o755)
                yield work
                for path in sorted(work.rglob("*")):
                    if path.is_file():
                        with open(path, "rb+") as stream:  # Windows syncs only what is open for writing
                            os.fsync(stream.fileno())
                try:
                    os.rename(work, target)
                except OSError as error:
                    if not target.is_dir():
                        raise
                    if not or_existing:
                        raise _exists(target) from error
    finally:
        for folder in made if not target.exists() else ():
            with suppress(OSError):  # another run has put something there
                folder.rmdir()


def sweep_leftovers(build: Path) -> None:
    """Removes what killed runs left in a build folder and in the system's folder for temporary files. Raises nothing."""
    sweep(build, _BUILD_DEPTH)
    with suppress(OSError):
        sweep(Path(tempfile.gettempdir()))


@contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """Yields an empty folder that vanishes when the block ends, or in a later run if this process is killed.

    parent: where; by default in the system's folder for temporary files (TMPDIR). Raises OutputError if it cannot be made, and in
    place of any error of the block that a full disk caused.
    """
    try:
        parent = parent or Path(tempfile.gettempdir())
    except OSError as error:
        raise _unwritable("The folder for temporary files (TMPDIR)", error) from error
    sweep(parent)
    with ExitStack() as stack:
        with _explained(parent):
            partial = stack.enter_context(partial_folder(parent, "nemoport"))
            (partial / _CONTENT).mkdir()
        with _full_disk_explained(parent, partial):
            yield partial / _CONTENT


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
        raise _unwritable(target, error) from error


@contextmanager
def _full_disk_explained(target: Path, work: Path) -> Iterator[None]:
    """Turns any error of the block, such as a RuntimeError from C++, into an OutputError where a disk is full: that of
    the folder `work`, or that of temporary files."""
    try:
        yield
    except OutputError:
        raise
    except Exception as error:
        causes: list[BaseException] = [error]
        while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
            causes.append(cause)
        if isinstance(error, NemoportError) and len(causes) == 1:  # it states its own reason
            raise
        temporary = Path(tempfile.gettempdir())  # some libraries write there
        found = [(place, _no_room(folder)) for place, folder in ((target, work), (temporary, temporary))]
        found += [(target, one) for one in causes if isinstance(one, OSError) and one.errno in _FULL]
        place, full = next((one for one in found if one[1]), (target, None))
        if full is None:
            raise
        raise _unwritable(place, full) from error


def _no_room(folder: Path) -> OSError | None:
    """Returns the error of writing a MiB into a folder, None if there is room. A quota shows in no figure of free space."""
    try:
        with tempfile.TemporaryFile(dir=folder) as stream:
            stream.write(bytes(1 << 20))
    except OSError as error:
        if error.errno in _FULL:
            return error


def _unwritable(target: Path | str, error: OSError) -> OutputError:
    return OutputError(
        f"{target} cannot be written.",
        expected="a writable place with enough room",
        found=f"{error.strerror or error}",
        todo="free space, fix its permissions, or choose another place",
    )


def _exists(target: Path) -> OutputError:
    return OutputError(
        f"{target} exists already.",
        expected="a new folder",
        found="one made by other inputs or an unknown one",
        todo="remove it, or choose another place",
    )
