"""Runs every stage on a disk that fills up, and with a full folder for temporary files. Needs the right to mount a tmpfs.

    python bench/full_disk.py [--stage export ...] [--work FOLDER]

Each trial gives a stage a share of the room that its files need, or 64 KiB in TMPDIR. It counts as lost
- if the exit code is not 2 or the message does not state that no space is left, and where, unless the run fits;
- if it leaves a file that is neither what an undisturbed run writes nor the state of what is taken up again, or unfinished work;
- if a second run with room differs in any file from an undisturbed run. Exit code 1: something was lost.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from trials import Trials, arguments, stages, unfinished, work_folder

from nemoport import resources

SHARES = (0.02, 0.3, 0.6, 0.95)  # of the bytes that a stage writes
LITTLE = 64 << 10
BLOCK = 4096


def main() -> int:
    # As behind a quota, which no figure of free space shows: else a stage with too little room is refused before it begins.
    resources.free_disk = lambda folder: None
    options = arguments("Runs every stage on a disk that fills up, and with a full folder for temporary files.").parse_args()
    with work_folder(options) as root:
        trials = Trials(root, options.checkpoint)
        names = options.stage or list(stages())
        trials.run_undisturbed(names)
        failed = False
        print("| stage | trials | refused: no space | enough | lost |\n|---|---|---|---|---|")
        for name in names:
            found = [trial(trials, name, share) for share in (*SHARES, None)]
            losses = [line for _, lost in found for line in lost]
            refused = sum(code == 2 for code, _ in found)
            print(f"| {name} | {len(found)} | {refused} | {len(found) - refused} | {len(losses)} |", flush=True)
            print("\n".join(losses), end="\n" if losses else "", file=sys.stderr)
            failed |= bool(losses)
    return int(failed)


def trial(trials: Trials, name: str, share: float | None) -> tuple[int, list[str]]:
    """Runs a stage with a share of the room that it needs, or with little room in TMPDIR: (exit code, what was lost)."""
    stage = stages()[name]
    trials.start(name)
    before = used(trials.work)
    written = sum(size for path, size in trials.bytes[name].items() if path not in trials.before)
    room = LITTLE if share is None else int(before + share * written) + 4 * BLOCK
    place = trials.tmp if share is None else trials.work
    with disk(place, room) as enlarge:
        trials.start(name)
        code, lost = trials.wait(trials.run(stage)), []
        case, printed = f"{name}, {'TMPDIR' if share is None else share}", trials.log()
        told = all(part in printed for part in (f"nemoport: {place}", "No space left")) and "Traceback" not in printed
        if code != trials.codes[name] and (code != 2 or not told):
            lost.append(f"{case}: exit code {code}: {printed[-1500:]}")
        lost += [f"{case}: {line}" for line in trials.unfit(name)]
        lost += [f"{case}: {path} is left" for path in unfinished(trials.work, trials.tmp)]
        enlarge()
        return code, lost + [f"{case}: {line}" for line in trials.again(name, stage)]


def used(folder: Path) -> int:
    """Bytes of the blocks that the files of a folder take."""
    return sum(-(-path.lstat().st_size // BLOCK) * BLOCK + BLOCK for path in folder.rglob("*"))


@contextlib.contextmanager
def disk(folder: Path, room: int) -> Iterator:
    """Mounts a disk of `room` bytes on a folder; yields a function that enlarges it."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", folder], check=True)
    try:
        yield lambda: subprocess.run(["mount", "-o", "remount,size=4g", folder], check=True)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


if __name__ == "__main__":
    sys.exit(main())
