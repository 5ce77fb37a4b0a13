"""Packs what bench/gpu.sh needs on a machine with a GPU that reaches no network: code, wheels, graphs and speech, in parts.

    python bench/gpu_pack.py --reference BUILD [--full BUILD] --out build/gpu [--python 3.12] [--architecture 90]

BUILD has fp32, fp16 and int8-static, or these in the kv layout. Of the one in full dimensions large tensors are left out, and are
random again over there: times and memory depend on their sizes alone. Of onnxruntime's CUDA provider the kernels of one
architecture stay (90: H100, H200; 0 keeps all). The parts are below `--part-bytes`; gpu.sh joins them in any number of calls.
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from gpu_run import variants_of

from nemoport.cache_layout import KV, NEMO, cache_layout_of
from nemoport.reference import training_pack
from nemoport.speech.corpus import read_corpus

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
AUDIO = ROOT / "reference" / "audio"
SCRIPTS = ("gpu.sh", "gpu_run.py", "gpu_full.py", "graph_in_torch.py", "streaming.py", "worker.py", "frames_and_tokens.py")
# Beside numpy, onnx and torch, which such a machine has.
WHEELS = (*training_pack.WHEELS, "soxr", "rapidfuzz", "flatbuffers", "protobuf", "packaging")
FATBIN = struct.Struct("<IHHQ")  # magic, version, size of this header, size behind it
ENTRY = struct.Struct("<HHIQ")  # kind, version, size of this header, size behind it; the architecture is at ARCHITECTURE
MAGIC, ARCHITECTURE = 0xBA55ED50, 0x1C
LARGE = 65536  # bytes of a tensor that is made anew
WEIGHTS = (1, 2, 3, 10)  # onnx.TensorProto: f32, u8, s8, fp16; others are indices


def keep_architecture(library: bytearray, architecture: int) -> int:
    """Fills the code of other architectures in a CUDA library with zeros, which compress to nothing, and returns their bytes. The
    driver picks an entry by its header, and those stay."""
    gone, at = 0, library.find(struct.pack("<I", MAGIC))
    while at >= 0:
        _, _, header, size = FATBIN.unpack_from(library, at)
        at, end = at + header, at + header + size
        while at < end:
            _, _, header, size = ENTRY.unpack_from(library, at)
            if struct.unpack_from("<I", library, at + ARCHITECTURE)[0] != architecture:
                library[at + header : at + header + size] = bytes(size)
                gone += size
            at += header + size
        at = library.find(struct.pack("<I", MAGIC), end)
    return gone


def put_wheels(folder: Path, python: str, architecture: int) -> None:
    """Unpacks wheels for Linux on x86-64 into a folder."""
    tags = [f"--platform=manylinux_2_{minor}_x86_64" for minor in (17, 26, 27, 28, 31, 34)] + ["--platform=manylinux2014_x86_64"]
    wanted = [f"{name}=={version(name)}" for name in WHEELS] + [f"onnxruntime-gpu=={version('onnxruntime')}"]
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "--implementation=cp", *tags]
    downloads = folder.with_name("wheels")
    subprocess.run([*pip, f"--python-version={python}", "-d", downloads, *wanted], check=True)
    for wheel in downloads.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    # Of onnxruntime itself Python's module has all that this library has.
    for path in (*folder.glob("onnxruntime/capi/libonnxruntime.so*"), *folder.glob("onnxruntime/capi/*tensorrt*")):
        path.unlink()
    provider = folder / "onnxruntime" / "capi" / "libonnxruntime_providers_cuda.so"
    if architecture:
        library = bytearray(provider.read_bytes())
        keep_architecture(library, architecture)
        provider.write_bytes(library)
    shutil.rmtree(downloads)


def put_build(source: Path, target: Path, variants: Sequence[str], hollow: bool) -> None:
    """Copies the variants of a build. hollow: without the values of large tensors, which gpu_full.py makes."""
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    shutil.copytree(source / "shared", target / "shared")
    shutil.copyfile(source / "config.json", target / "config.json")
    for variant in variants:
        (target / variant).mkdir()
        shutil.copyfile(source / variant / "manifest.json", target / variant / "manifest.json")
        for name in ("encoder_model.onnx", "decoder_model.onnx"):
            shutil.copyfile(source / variant / name, target / variant / name)
            data = source / variant / f"{name}.data"
            if not hollow:
                shutil.copyfile(data, target / variant / data.name)
                continue
            model, kept, made = onnx.load(source / variant / name, load_external_data=False), [], []
            with data.open("rb") as file, (target / variant / f"{name}.small").open("wb") as small:
                for tensor in filter(uses_external_data, model.graph.initializer):
                    info = ExternalDataInfo(tensor)
                    place = [info.offset or 0, info.length]
                    if info.length < LARGE or tensor.data_type not in WEIGHTS:
                        file.seek(place[0])
                        small.write(file.read(info.length))
                        kept.append(place)
                    else:
                        made.append([*place, tensor.data_type])
            hole = {"bytes": data.stat().st_size, "kept": kept, "made": made}
            (target / variant / f"{name}.hollow.json").write_text(json.dumps(hole))


def put_speech(folder: Path, count: int) -> None:
    """Copies recordings, and writes their manifest."""
    every = read_corpus(AUDIO / "eval.jsonl", 16000).utterances
    rows = []
    for utterance in every[:: max(1, len(every) // count)][:count]:
        shutil.copyfile(utterance.path, folder / utterance.path.name)
        seconds = len(utterance.samples()) / 16000
        rows.append(json.dumps({"audio_filepath": utterance.path.name, "duration": seconds, "text": utterance.text}))
    (folder / "speech.jsonl").write_text("\n".join(rows) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--full", type=Path)
    parser.add_argument("--out", type=Path, default=Path("build/gpu"))
    parser.add_argument("--caches", choices=(NEMO, KV), default=KV, help="the layout that is carried")
    parser.add_argument("--python", default="3.12", help="of that machine")
    parser.add_argument("--architecture", type=int, default=90)
    parser.add_argument("--no-wheels", action="store_true", help="for a try on this machine")
    parser.add_argument("--recordings", type=int, default=40)
    parser.add_argument("--part-bytes", type=int, default=50_000_000)
    options = parser.parse_args()
    shutil.rmtree(options.out, ignore_errors=True)
    stage = options.out / "stage"
    for name in ("tree", "site", "speech", "reference", *(["full"] if options.full else [])):
        (stage / name).mkdir(parents=True)
    subprocess.run([sys.executable, ROOT / ".ci" / "tree.py"], check=True)  # an installation from a checkout has links alone
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(ROOT / "build" / "tree" / "nemoport", stage / "tree" / "nemoport", ignore=ignored)
    for name in SCRIPTS:
        shutil.copyfile(HERE / name, stage / name)
    if not options.no_wheels:
        put_wheels(stage / "site", options.python, options.architecture)
    put_speech(stage / "speech", options.recordings)
    for name, build in (("reference", options.reference), *([("full", options.full)] if options.full else [])):
        variants = [variant for variant in variants_of(build) if cache_layout_of(variant) == options.caches]
        put_build(build, stage / name, variants, name == "full")
    archive = options.out / "all.tar.xz"
    with tarfile.open(archive, "w:xz", preset=2) as tar:
        tar.add(stage, "gpu")
    with archive.open("rb") as file:
        for number in range(100):
            if not (part := file.read(options.part_bytes)):
                break
            folder = options.out / f"part-{number}"
            folder.mkdir()
            (folder / f"all.tar.xz.{number:02}").write_bytes(part)
            shutil.copyfile(HERE / "gpu.sh", folder / "gpu.sh")
    archive.unlink()
    shutil.rmtree(stage)
    print(f"{number} parts: {options.out}/part-0 to part-{number - 1}; see bench/gpu.sh")


if __name__ == "__main__":
    main()
