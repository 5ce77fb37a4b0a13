"""Copying gigabytes without reading them, where the file system can."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_BLOCK_BYTES = 1 << 30


def copy_file(source: Path, target: Path) -> None:
    """A file of its own, mode 644: shared blocks on btrfs and xfs, else a copy made by the kernel. Raises OSError.

    Not a hard link: onnx refuses external data with several links, so that linking would make the build's own graphs
    unreadable to the next quantizer. Not a symlink either: onnxruntime may refuse those.
    """
    with open(source, "rb") as reader, open(target, "wb") as writer:
        size = os.fstat(reader.fileno()).st_size
        try:
            done = 0
            while done < size:
                copied = os.copy_file_range(reader.fileno(), writer.fileno(), min(_BLOCK_BYTES, size - done))
                if not copied:
                    break
                done += copied
        except (AttributeError, OSError):  # not Linux; across file systems on an old kernel; or a real fault, which
            reader.seek(0)  # the plain copy meets again
            writer.seek(0)
            writer.truncate()
            shutil.copyfileobj(reader, writer, 1 << 20)
    target.chmod(0o644)
