"""Memory and disk that a stage takes, stated before it begins and compared with what is free.

A stage is refused where less is free than what it surely takes. Where less is free than what it was measured to take, a line says
so and the stage begins: the system gives back file pages, and other programs end. Where the system does not say what is free
(memory on macOS and Windows), nothing is compared.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nemoport.errors import OutputError, ResourceError
from nemoport.progress import Progress

LARGE_BYTES = 1 << 30  # from which on a stage prints what it takes
# Of a prediction: what a stage takes at the least, on file systems that compress and with other versions of the libraries.
SURE = 0.9


@dataclass(frozen=True)
class Needs:
    """What a stage takes at its peak, as multiples of the fp32 weights' bytes, as measured at 0.6B (docs/reliability.md).

    memory: of all its processes, mapped files included; held: the part that is in no file, which the system can only move to
    swap; disk: of the folder that it writes into, beyond what was there; temporary: of the folder for temporary files (TMPDIR);
    kept: of what it leaves elsewhere in the build, such as the state of a calibration, for the next run.
    """

    memory: float = 1.0
    held: float = 0.0
    disk: float = 0.0
    temporary: float = 0.0
    kept: float = 0.0


def check_free(stage: str, weights_bytes: int, needs: Needs, folder: Path, progress: Progress, kept_bytes: int = 0) -> None:
    """Compares what a stage takes with what is free, before it begins. It prints what it takes where that is large.

    weights_bytes: of the weights in fp32. folder: that it will write, which need not exist. kept_bytes: what the build holds
    already of what the stage keeps. Raises ResourceError (memory) or OutputError (disk) where surely too little is free.
    """
    factors = (needs.memory, needs.held, needs.disk, needs.temporary, needs.kept)
    memory, held, disk, temporary, kept = (int(factor * weights_bytes) for factor in factors)
    rooms = _rooms(folder, disk + max(0, kept - kept_bytes), temporary)
    taken = [(memory, "of memory"), *((room, f"on the disk of {place}") for place, room in rooms.items())]
    if max(size for size, _ in taken) >= LARGE_BYTES:
        progress(f"{stage}: takes about {', '.join(f'{_shown(size)} {of}' for size, of in taken if size)}")
    _check_memory(stage, memory, held, progress)
    for place, room in rooms.items():
        _check_disk(stage, room, place, progress)


def _rooms(folder: Path, disk: int, temporary: int) -> dict[Path, int]:
    """Bytes that are taken where `folder` is and where temporary files are, which may be one file system."""
    if temporary:
        with suppress(OSError):
            place = Path(tempfile.gettempdir())
            if _existing(folder).stat().st_dev != place.stat().st_dev:
                return {folder: disk, place: temporary}
    return {folder: disk + temporary}


def _check_memory(stage: str, memory: int, held: int, progress: Progress) -> None:
    free = free_memory()
    if free is None:
        return
    if sum(free) < SURE * held:
        raise ResourceError(
            f"There is too little memory for {stage}.",
            expected=f"{_shown(held)} free, swap included",
            found=f"{_shown(sum(free))}",
            todo="end other programs, raise the limit of the container, add swap, or take a machine with more memory",
        )
    if free[0] < memory:
        progress(f"{stage}: only {_shown(free[0])} of memory are free: it may become slow, or be ended by the system")


def _check_disk(stage: str, disk: int, folder: Path, progress: Progress) -> None:
    free = free_disk(folder)
    if free is None:
        return
    if free < SURE * disk:
        raise OutputError(
            f"There is too little room on the disk for {stage}.",
            expected=f"{_shown(disk)} free where {folder} is written",
            found=_shown(free),
            todo="free space, or choose another place",
        )
    if free < disk:
        progress(f"{stage}: only {_shown(free)} are free where {folder} is written: it may be too little")


def free_disk(folder: Path) -> int | None:
    """Bytes that may be written where `folder` is or will be; None where the system does not say. A quota does not show."""
    with suppress(OSError):
        return shutil.disk_usage(_existing(folder)).free
    return None


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that exists."""
    return next(place for place in [folder.absolute(), *folder.absolute().parents] if place.is_dir())


def shares_blocks(folder: Path) -> bool:
    """Finds whether copies of a file beside it take no room, as on btrfs and xfs, by making one. Raises nothing."""
    with suppress(OSError, ImportError):
        import fcntl

        place = _existing(folder)
        with tempfile.TemporaryFile(dir=place) as one, tempfile.TemporaryFile(dir=place) as other:
            one.write(b"x")
            one.flush()
            fcntl.ioctl(other.fileno(), 0x40049409, one.fileno())  # FICLONE
            return True
    return False


def free_memory(root: Path = Path("/")) -> tuple[int, int] | None:
    """Bytes of memory, and of swap, that this process can have now; None where the system does not say.

    What a container or a session may use (its control groups, versions 1 and 2) counts. root: of /proc and /sys.
    """
    try:
        system = _numbers(root / "proc/meminfo", 1024)
        available, swap = system["MemAvailable:"], system["SwapFree:"]
    except (OSError, KeyError, ValueError):
        return None
    return min([available, *_left_in_groups(root)]), swap


def _shown(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= LARGE_BYTES // 10 else f"{count / 2**20:.0f} MiB"


def _left_in_groups(root: Path) -> Iterator[int]:
    """Yields what each control group of this process has left: its limit without what it uses, but for pages of files."""
    groups = []
    with suppress(OSError):
        groups = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
    for _, controllers, name in groups:
        if not controllers:  # version 2
            top, files, prefix = root / "sys/fs/cgroup", ("memory.max", "memory.current"), ""
        elif "memory" in controllers.split(","):
            top, prefix = root / "sys/fs/cgroup/memory", "total_"
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        group = top / name.lstrip("/")
        for folder in (group, *group.parents):  # in a container, the name may be one outside of it
            if folder.is_relative_to(top):
                with suppress(OSError, ValueError):  # no such group, or "max"
                    limit, used = (int((folder / file).read_text()) for file in files)
                    stat = _numbers(folder / "memory.stat", 1)
                    pages = sum(stat.get(f"{prefix}{kind}_file", 0) for kind in ("inactive", "active"))
                    yield max(0, limit - max(0, used - pages))


def _numbers(path: Path, unit: int) -> dict[str, int]:
    """Reads lines of a name and a number. Raises OSError, ValueError."""
    rows = (line.split() for line in path.read_text().splitlines())
    return {row[0]: int(row[1]) * unit for row in rows if len(row) > 1}
