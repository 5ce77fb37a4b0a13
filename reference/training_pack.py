"""Packs what ``gpu_train.sh`` carries to a machine with a GPU that reaches no network.

    python -m nemoport.reference.training_pack --corpus FILE[=TIMES] --recordings FILE[=TIMES] --out build/gpu-train

A part has at most --part-bytes. The first has this code, the wheels that such a machine lacks, the weights to start from and
speech; the others have speech alone. Speech is Ogg Opus of 24 kbit/s, as the recordings are, which stay as they are: 55 MB hold
4.9 hours. As log-mel in 8 bits they would hold 1.2, as FLAC 1.1, and only samples can be augmented.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections import deque
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

from nemoport.errors import CheckpointError, CorpusError, NemoportError
from nemoport.export.checkpoint import Checkpoint, read_checkpoint

from . import data, further, reader, text

HERE = Path(__file__).resolve().parent
START = HERE / "checkpoints" / "streaming-en.nemo"
SCRIPT, PART = "gpu_train.sh", "part.tar.gz"
PART_BYTES = 55_000_000  # with what else travels, below 64 MiB
OPUS_LEVEL = 0.928  # of compression: 24 kbit/s
ROW_BYTES = 400  # of a clip's row and entry in an archive, more than they take
SHORTEST_S, LONGEST_S = 0.4, 17.0  # as data.load
# Beside numpy and torch, which such a machine has.
WHEELS = (
    "pydantic",
    "pydantic_core",
    "annotated_types",
    "typing_inspection",
    "typing_extensions",
    "soundfile",
    "cffi",
    "pycparser",
)


def opus(path: Path) -> bytes:
    """A clip as Ogg Opus: the file itself, where it is that already."""
    import soundfile

    if path.suffix == ".opus":
        return path.read_bytes()
    samples, rate_hz = soundfile.read(path, dtype="int16")
    coded = io.BytesIO()
    soundfile.write(coded, samples, rate_hz, format="OGG", subtype="OPUS", compression_level=OPUS_LEVEL)
    return coded.getvalue()


def chosen(corpora: dict[Path, int], recordings: dict[Path, int], hours: float) -> list[dict]:
    """Rows of training speech with ``recorded`` and ``weight``, in an order in which every part of them is like the whole.

    corpora, recordings: times that each clip of a manifest is used; hours: of them all, each clip once, or 0 for everything. Of
    recordings what is held out is left out, see ``reader``.
    """
    rows = []
    for manifest, weight in corpora.items():
        rows += [dict(row, recorded=False, weight=weight) for row in data.synthetic_rows(manifest, as_written=False)]
    for manifest, weight in recordings.items():
        rows += [dict(row, recorded=True, weight=weight) for row in reader.rows(manifest, held_out=False)]
    rows = [row for row in rows if SHORTEST_S <= row["duration"] <= LONGEST_S]
    rows.sort(key=lambda row: text.share_of(row["audio_filepath"], "pack"))
    share = min(1.0, hours * 3600 / max(1.0, sum(row["duration"] for row in rows))) if hours else 1.0
    return rows[: round(share * len(rows))]


def start_of(checkpoint: Checkpoint) -> bytes:
    """What a run starts from, as torch saves it. Raises CheckpointError for a kind that ``network`` does not have."""
    import torch

    if checkpoint.spec.kind != "streaming-rnnt" or checkpoint.config["encoder"].get("xscaling", True):
        raise CheckpointError(
            f"{checkpoint.path} cannot be trained further by this script.",
            expected="a cache-aware RNNT model without xscaling",
            found=checkpoint.spec.kind,
            todo="use python -m nemoport.reference.train",
        )
    content = io.BytesIO()
    spec = json.dumps(checkpoint.spec.to_dict())
    torch.save({"sha256": checkpoint.sha256, "spec": spec, "tensors": checkpoint.load_weights()}, content)
    return content.getvalue()


def tokens_of(checkpoint: Checkpoint) -> Callable[[str], list[int]]:
    """What turns a normalised text into tokens."""
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor()
    processor.load_from_serialized_proto(checkpoint.tokenizer)
    return processor.encode_as_ids


def put_wheels(folder: Path, python: str) -> None:
    """Unpacks the wheels for Linux on x86-64 into a folder."""
    tags = [f"--platform=manylinux_2_{minor}_x86_64" for minor in (17, 26, 27, 28, 31, 34)] + ["--platform=manylinux2014_x86_64"]
    wanted = [f"{name}=={version(name)}" for name in WHEELS]
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "--implementation=cp", *tags]
    downloads = folder.with_name("wheels")
    subprocess.run([*pip, f"--python-version={python}", "-d", downloads, *wanted], check=True)
    for wheel in downloads.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    shutil.rmtree(downloads)


def code() -> Iterator[tuple[str, bytes]]:
    """Name below tree/ and content of every module of this project that is imported here, and so all that ``further`` needs."""
    for name, module in sorted(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if path and name.partition(".")[0] == "nemoport":
            inner = "/__init__.py" if hasattr(module, "__path__") else ".py"
            yield f"tree/{name.replace('.', '/')}{inner}", Path(path).read_bytes()


def put(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Adds a file to an archive."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def pack(checkpoint: Checkpoint, rows: list[dict], out: Path, part_bytes: int, python: str) -> list[Path]:
    """Writes the parts and returns their folders. python: of that machine, such as 3.12; "" for one that has the WHEELS.

    Raises CheckpointError (``start_of``), and CorpusError where a part is too small for what the first one holds.
    """
    for old in out.glob("part-*"):
        shutil.rmtree(old)
    fixed = [(further.START, start_of(checkpoint)), *code()]
    if python:
        put_wheels(site := out / "site", python)
        fixed += [(str(path.relative_to(out)), path.read_bytes()) for path in sorted(site.rglob("*")) if path.is_file()]
        shutil.rmtree(site)
    tokens, waiting, folders = tokens_of(checkpoint), deque(rows), []
    while waiting or not folders:
        number = len(folders)
        folders.append(folder := out / f"part-{number}")
        folder.mkdir(parents=True)
        shutil.copyfile(HERE / SCRIPT, folder / SCRIPT)
        listed, room = [], part_bytes
        with gzip.open(folder / PART, "wb", 6) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
            for name, content in fixed:
                put(tar, name, content)
            packed.flush()
            room -= (folder / PART).stat().st_size + ROW_BYTES
            fixed = []
            while waiting and room > 0:
                row, coded = waiting[0], opus(Path(waiting[0]["audio_filepath"]))
                name = f"clips/{number:02}-{len(listed):06}.opus"
                room -= len(coded) + ROW_BYTES
                if room > 0:
                    put(tar, name, coded)
                    listed.append(dict(file=name, tokens=tokens(row["text"]), recorded=row["recorded"], weight=row["weight"]))
                    waiting.popleft()
            put(tar, f"speech-{number:02}.jsonl", "".join(json.dumps(line) + "\n" for line in listed).encode())
        if not listed and waiting:
            raise CorpusError(
                "A part holds no speech.",
                expected="parts of more bytes than the code, the wheels and the weights",
                found=f"{part_bytes}",
                todo="give a larger --part-bytes",
            )
    return folders


def weighted(text: str) -> tuple[Path, int]:
    """A manifest and its weight, of FILE or FILE=TIMES."""
    path, equals, times = text.rpartition("=")
    return (Path(path), int(times)) if equals else (Path(text), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Packs a training for a machine with a GPU.")
    parser.add_argument("--start", type=Path, default=START, help="the .nemo file that is trained further")
    for name, what in (("corpus", "manifest made by reference.corpus"), ("recordings", "manifest of recordings")):
        shown = f"{what}, and how often each clip is used (1)"
        parser.add_argument(f"--{name}", type=weighted, action="append", default=[], metavar="FILE[=TIMES]", help=shown)
    parser.add_argument("--hours", type=float, default=0.0, help="of speech at most, the same share of every manifest (0: all)")
    parser.add_argument("--out", type=Path, default=Path("build/gpu-train"))
    parser.add_argument("--part-bytes", type=int, default=PART_BYTES)
    parser.add_argument("--python", default="3.12", help="of that machine; none: without wheels")
    args = parser.parse_args()
    if missing := [str(path) for path, _ in (*args.corpus, *args.recordings) if not path.is_file()]:
        parser.error(f"there is no {', '.join(missing)}")
    python = "" if args.python == "none" else args.python
    try:
        if not (rows := chosen(dict(args.corpus), dict(args.recordings), args.hours)):
            parser.error(f"no clip of {SHORTEST_S} to {LONGEST_S} s in any --corpus or --recordings that may be trained on")
        folders = pack(read_checkpoint(str(args.start)), rows, args.out, args.part_bytes, python)
    except NemoportError as error:
        raise SystemExit(f"{error}") from error
    hours = sum(row["duration"] for row in rows) / 3600
    print(f"{len(rows)} clips, {hours:.2f} h, in {len(folders)} parts: {folders[0]} and so on; see {SCRIPT}")


if __name__ == "__main__":
    main()
