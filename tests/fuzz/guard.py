"""What a parser may not do while it reads a case: write, rename or delete outside of the case's folder, read a foreign file,
start a process, reach the network, take long, grow."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GROWTH_BYTES = 300 << 20  # of the process's peak by one case; a YAML text of 400,000 values takes 180 MB
ADDRESS_BYTES = 3 << 30  # above what the process has at its start: what asks for more gets a MemoryError

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PATHS = {  # audit event -> its arguments that are paths to be written
    "os.rename": (0, 1),
    "os.remove": (0,),
    "os.rmdir": (0,),
    "os.mkdir": (0,),
    "os.link": (0, 1),
    "os.symlink": (1,),
    "os.truncate": (0,),
    "os.chmod": (0,),
    "os.chown": (0,),
    "os.utime": (0,),
    "shutil.rmtree": (0,),
}
_NEVER = ("subprocess.", "socket.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "pickle.find_class", "pty.")
# Where Python and its packages read from; a case's folder is nowhere below.
_LIBRARIES = tuple(str(Path(p).resolve()) for p in (sys.prefix, sys.base_prefix, *sys.path, Path(__file__).parents[2]) if p)
# nemoport/partial.py reads which start of the machine this is, nemoport/resources.py what memory is free; and for a checkpoint's
# name that reads as a Hub id, huggingface_hub reads the user's token.
_HUB = os.path.expanduser("~/.cache/huggingface/")
_SYSTEM = ("/proc/sys/kernel/", "/proc/meminfo", "/proc/self/cgroup", "/sys/fs/cgroup/", _HUB)


class Escape(BaseException):
    """A case reached out of its folder. No `except Exception` hides it."""


class Hang(BaseException):
    """A case took more processor time than it may."""


class Guard:
    """Watches the process. folder: the one that cases may write into. Python cannot remove an audit hook, so there is one guard
    for a process."""

    def __init__(self, folder: Path):
        self._inside = (str(folder.resolve()) + os.sep, str(folder) + os.sep)
        self._whole = {inside[:-1] for inside in self._inside}
        self._on = False
        self._seen = ""
        self._files = sorted(os.listdir(folder.parent))
        self._beside = folder.parent
        self._status = os.open("/proc/self/status", os.O_RDONLY)
        self._inherited = sys.maxsize  # until the peak is above that of the parent, which getrusage begins with
        self._peak = self._peak_bytes()
        stated = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        self._inherited = stated if stated > self._peak + (4 << 20) else 0
        sys.addaudithook(self._audit)
        signal.signal(signal.SIGPROF, self._late)
        limit = _address_bytes() + ADDRESS_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    @contextmanager
    def watched(self, cpu_seconds: float) -> Iterator[None]:
        """Watches the block. Raises Escape, also where the block caught it, or Hang; MemoryError for growth of the peak.
        cpu_seconds: processor time that the block may take, so that other processes do not count."""
        self._seen = ""
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        self._on = True
        try:
            yield
        finally:
            self._on = False
            signal.setitimer(signal.ITIMER_PROF, 0)
            if self._seen:
                raise Escape(self._seen)
        before, self._peak = self._peak, self._peak_bytes()
        if (grown := self._peak - before) > GROWTH_BYTES:
            raise MemoryError(f"the case took {grown >> 20} MB")

    def check_beside(self) -> None:
        """Raises Escape if files appeared or vanished beside the case's folder: libraries in C write without an audit event."""
        before, self._files = self._files, sorted(os.listdir(self._beside))
        if (now := self._files) != before:
            raise Escape(f"beside the case's folder are {now}")

    def _peak_bytes(self) -> int:
        """The most memory that the process had."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        if peak > self._inherited:
            return peak
        text = os.pread(self._status, 4096, 0)
        at = text.index(b"VmHWM:")
        return int(text[at + 6 : text.index(b"kB", at)]) << 10

    def _late(self, *_: object) -> None:
        if self._on:
            raise Hang("more than its processor time")

    def _audit(self, event: str, arguments: tuple) -> None:
        if not self._on:
            return
        if event == "open":
            path, mode, flags = arguments
            writes = flags & _WRITING if isinstance(flags, int) else any(c in str(mode) for c in "wax+")
            if not isinstance(path, int) and not self._is_inside(path) and (writes or not _is_library(path)):
                self._refuse(f"{'wrote' if writes else 'read'} {path!r}")
        elif event in _PATHS:
            for index in _PATHS[event]:
                path = _beside_descriptor(arguments[index], arguments[-1])
                if not isinstance(path, int) and not self._is_inside(path):
                    self._refuse(f"{event} {path!r}")
        elif event.startswith(_NEVER):
            self._refuse(f"{event} {arguments!r:.200}")

    def _refuse(self, what: str) -> None:
        self._seen = what
        raise Escape(what)

    def _is_inside(self, path: object) -> bool:
        name = os.path.abspath(os.fsdecode(path))  # type: ignore[arg-type]
        return name.startswith(self._inside) or name in self._whole


def _beside_descriptor(path: object, folder: object) -> object:
    """The path of a call that has a descriptor of its folder as the last argument, as in shutil.rmtree."""
    if isinstance(folder, int) and folder >= 0 and not isinstance(path, int) and not os.path.isabs(os.fsdecode(path)):  # type: ignore[arg-type]
        return os.path.join(os.readlink(f"/proc/self/fd/{folder}"), os.fsdecode(path))  # type: ignore[arg-type]
    return path


def _is_library(path: object) -> bool:
    return os.path.abspath(os.fsdecode(path)).startswith(_LIBRARIES + _SYSTEM)  # type: ignore[arg-type]


def _address_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
