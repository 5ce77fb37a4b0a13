"""Makes a .nemo file of the weights that ``gpu_train.sh`` brought back.

``python -m nemoport.reference.training_join OUT --nemo x.nemo``
"""

from __future__ import annotations

import argparse
import io
import tarfile
from pathlib import Path

from nemoport.errors import CheckpointError, CorpusError, NemoportError
from nemoport.export.archive import WEIGHTS
from nemoport.export.checkpoint import read_checkpoint

from . import further
from .training_pack import START


def joined(folder: Path, name: str) -> bytes:
    """What was brought back in parts name.00, name.01, ... Raises CorpusError if there is none."""
    parts = sorted(folder.glob(f"{name}.[0-9][0-9]"))
    if not parts:
        raise CorpusError(
            f"{folder} holds no {name}.",
            expected=f"{name}.00 and what follows it",
            found=", ".join(sorted(path.name for path in folder.glob("*"))) or "nothing",
            todo="go on with the run, if it was stopped: see gpu_train.sh",
        )
    return b"".join(path.read_bytes() for path in parts)


def join(folder: Path, start: Path, nemo: Path) -> None:
    """Writes ``nemo``: the .nemo file ``start`` with the weights that were trained. Raises CheckpointError if others began."""
    import torch

    trained = torch.load(io.BytesIO(joined(folder, further.WEIGHTS)), weights_only=True)
    if trained["start"] != read_checkpoint(str(start)).sha256:
        raise CheckpointError(
            f"{folder} was not trained from {start}.",
            expected=trained["start"],
            found=read_checkpoint(str(start)).sha256,
            todo="name the checkpoint that was packed by --start",
        )
    content = io.BytesIO()
    torch.save(trained["tensors"], content)
    partial = nemo.with_name(f".{nemo.name}.partial")
    with tarfile.open(start) as old, tarfile.open(partial, "w") as new:
        for entry in old:
            stream = old.extractfile(entry)
            if Path(entry.name).name == WEIGHTS:
                entry.size, stream = len(content.getvalue()), io.BytesIO(content.getvalue())
            new.addfile(entry, stream)
    partial.replace(nemo)


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes a .nemo file of trained weights.")
    parser.add_argument("folder", type=Path, help="what came back")
    parser.add_argument("--start", type=Path, default=START, help="the .nemo file that was trained further")
    parser.add_argument("--nemo", type=Path, required=True, help="the file to write")
    args = parser.parse_args()
    try:
        join(args.folder, args.start, args.nemo)
    except NemoportError as error:
        raise SystemExit(f"{error}") from error


if __name__ == "__main__":
    main()
