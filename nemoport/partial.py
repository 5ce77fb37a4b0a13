"""Hidden folders of unfinished work, and the removal of those whose process is gone.

.NAME.xxxxxxxx.partial/     in the folder where NAME will be
    lock                    locked by the process that works here: the system unlocks it however the process ends
    ...                     the work

On a network file system that has no locks, nothing is removed, because a leftover cannot be told from work in progress.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NAME = re.compile(r"\..+\.[0-9a-f]{8}\.partial")
_LOCK = "lock"
_held: set[Path] = set()  # by this process, which the locks of some network file systems do not keep out


@contextmanager
def partial_folder(parent: Path, name: str) -> Iterator[Path]:
    """Yields a new hidden folder in `parent` for work on `name`; it is removed with the block. Raises OSError."""
    folder, lock = _new(parent.absolute(), name)
    try:
        yield folder
    finally:
        _remove(folder, lock)
        _held.discard(folder)


def sweep(folder: Path, depth: int = 0) -> None:
    """Removes partial folders in `folder`, and in its subfolders down to `depth`, whose process is gone.

    What cannot be removed, belongs to another user or cannot be locked stays. Raises nothing.
    """
    entries: list[os.DirEntry[str]] = []
    with suppress(OSError), os.scandir(folder) as found:
        entries += [entry for entry in found if entry.is_dir(follow_symlinks=False)]
    for entry in entries:
        path = Path(entry.path).absolute()
        if NAME.fullmatch(entry.name):
            with suppress(OSError, _Taken):
                if path not in _held and _is_mine(entry):
                    _remove(path, _locked(path, required=True))
        elif depth:
            sweep(path, depth - 1)


class _Taken(Exception):
    """Another process has locked the folder, or removes it."""


def _new(parent: Path, name: str) -> tuple[Path, int]:
    while True:
        folder = parent / f".{name}.{secrets.token_hex(4)}.partial"
        _held.add(folder)
        try:
            folder.mkdir(mode=0o700)
            return folder, _locked(folder)
        except _Taken:  # by `sweep` of another process, before it was locked
            _held.discard(folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            _held.discard(folder)
            raise


def _locked(folder: Path, *, required: bool = False) -> int:
    """Locks a folder and returns the descriptor that holds the lock. Raises _Taken; OSError if it must be locked and cannot."""
    path = folder / _LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    except FileNotFoundError as error:
        raise _Taken from error
    try:
        try:
            _lock(descriptor)
        except BlockingIOError as error:
            raise _Taken from error
        except OSError:  # there are no locks here
            if required:
                raise
        if not path.exists() or not os.path.samestat(os.fstat(descriptor), path.stat()):
            raise _Taken
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError from error

    def _is_mine(entry: os.DirEntry[str]) -> bool:
        return True
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _is_mine(entry: os.DirEntry[str]) -> bool:
        return entry.stat(follow_symlinks=False).st_uid == os.getuid()


def _remove(folder: Path, lock: int) -> None:
    """Removes a folder, its lock last, so that the next run takes up a removal that was interrupted."""
    for path in folder.iterdir() if folder.exists() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != _LOCK:
            with suppress(OSError):
                path.unlink()
    os.close(lock)  # Windows removes no open file
    shutil.rmtree(folder, ignore_errors=True)
