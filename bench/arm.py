"""Whether the variants give the same text on ARM: onnxruntime's own kernels for it, run in emulated processors.

    python bench/arm.py --build BUILD [--work build/arm] [--variant kv-int8-dynamic] [--processor cortex-a76]

Needs qemu for user programs (Debian: qemu-user-static), apt-get and a network once: Python for arm64 is unpacked from Debian's
packages and onnxruntime from its wheel, both into WORK. For each variant and processor: tokens that differ from this
processor's, in which utterances, and dB of the encoder's frames against this processor's; beside it what noise of 1e-6 in the
features does on this processor. Time under emulation is meaningless, and not shown.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
from emulated import AUDIO, emulator, in_another_process

from nemoport.files import folder_once

# name of qemu -> (what it has, processor's part number, features as Linux names them)
ARM = {
    "cortex-a72": ("NEON", "0xd08", ""),
    "cortex-a76": ("NEON, dot products", "0xd0b", "asimddp"),
    "max": ("NEON, dot products, 8-bit matrix products", "0xd4f", "asimddp sve i8mm bf16"),
}
LEVEL = 1e-6
NOISE = f"this one, noise of {LEVEL} in the features"  # what differences in the last bits come to
X86 = {"Haswell-noTSX": "AVX2"}
DEBIAN = (
    "libc6", "libgcc-s1", "libstdc++6", "libgomp1", "zlib1g", "libbz2-1.0", "liblzma5", "libssl3", "libexpat1", "libffi8",
    "libuuid1", "libsqlite3-0", "python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib",
)  # fmt: skip
# What a recogniser of the package imports, and onnx, which emulated.py imports.
WHEELS = ("numpy", "onnxruntime", "onnx", "soundfile", "soxr", "cffi", "pycparser", "flatbuffers", "protobuf", "ml_dtypes")
WHEELS += ("typing_extensions", "packaging", "pydantic", "pydantic_core", "annotated_types", "typing_inspection")
GLIBC = (17, 26, 27, 28, 31, 34)  # of the tags of wheels


def environment(work: Path) -> Path:
    """Puts a Python for arm64 into a folder, once, and returns it."""

    def fill(folder: Path) -> None:
        for name in ("lists/partial", "cache/archives/partial", "debian", "wheels", "site"):
            (folder / name).mkdir(parents=True)
        (folder / "status").touch()
        places = {"Dir::State::Lists": "lists", "Dir::State::status": "status", "Dir::Cache": "cache"}
        options = ["APT::Architecture=arm64", "APT::Architectures=arm64", "APT::Sandbox::User=root"]
        options += [f"{name}={folder.resolve() / place}" for name, place in places.items()]
        apt = ["apt-get", "-qq", *(f"-o{option}" for option in options)]
        subprocess.run([*apt, "update"], check=True)
        subprocess.run([*apt, "download", *DEBIAN], cwd=folder / "debian", check=True)
        for package in (folder / "debian").glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, folder / "root"], check=True)
        tags = [f"--platform=manylinux_2_{minor}_aarch64" for minor in GLIBC] + ["--platform=manylinux2014_aarch64"]
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "--python-version=3.11", *tags]
        wanted = [f"{name}=={version(name)}" for name in WHEELS]
        subprocess.run([*pip, "--implementation=cp", "-d", folder / "wheels", *wanted], check=True)
        for wheel in (folder / "wheels").glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(folder / "site")

    folder_once(work / "python", fill)
    return work / "python"


def of_arm(folder: Path, processor: str) -> tuple[list[str], dict[str, str]]:
    """Returns an interpreter of `environment` in an emulated processor, and its environment."""
    _, part, features = ARM[processor]
    # Without an ARM processor in /proc/cpuinfo onnxruntime's import ends with a segmentation fault: qemu shows this machine's.
    (folder / "root" / "proc").mkdir(exist_ok=True)
    basic = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm"
    text = f"processor\t: 0\nFeatures\t: {basic} {features}\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
    (folder / "root" / "proc" / "cpuinfo").write_text(f"{text}CPU variant\t: 0x0\nCPU part\t: {part}\nCPU revision\t: 0\n\n")
    import nemoport

    path = f"{Path(nemoport.__path__[0]).parent}:{folder / 'site'}"
    given = {"PATH": os.environ["PATH"], "QEMU_LD_PREFIX": str(folder / "root"), "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return [emulator("aarch64"), "-cpu", processor, str(folder / "root" / "usr" / "bin" / "python3.11")], given


def rows(build: Path, variants: list[str], processors: list[str], corpus: Path, work: Path) -> Iterator[tuple[str, ...]]:
    from rapidfuzz.distance import Levenshtein

    folder = environment(work).resolve()
    for variant in variants:
        frames, tokens = in_another_process([sys.executable], build / variant, corpus)
        for processor in (NOISE, *processors):
            if processor == NOISE:
                kernels, (found, others) = "", in_another_process([sys.executable], build / variant, corpus, noise=LEVEL)
            elif processor in X86:
                python = [emulator("x86_64"), "-cpu", processor, sys.executable]
                kernels, (found, others) = X86[processor], in_another_process(python, build / variant, corpus)
            else:
                python, given = of_arm(folder, processor)
                kernels, (found, others) = ARM[processor][0], in_another_process(python, build / variant, corpus, given)
            noise = np.square(found - frames).sum(dtype=np.float64) / np.square(frames).sum(dtype=np.float64)
            level = f"{-10 * np.log10(noise):.1f}" if noise else "the same bits"
            other = sum(map(Levenshtein.distance, tokens, others))
            where = ", ".join(str(i) for i, (a, b) in enumerate(zip(tokens, others, strict=True)) if a != b)
            yield variant, processor, kernels, f"{other} of {sum(map(len, tokens))}", where, level


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs variants in emulated ARM processors and compares what they find.")
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("build/arm"))
    parser.add_argument("--variant", action="append", help="repeat for several; default: all that onnxruntime runs")
    parser.add_argument("--processor", action="append", choices=(*X86, *ARM), help="repeat for several; default: all")
    parser.add_argument("--corpus", type=Path, default=AUDIO / "eval.jsonl")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    built = sorted(path.parent.name for path in args.build.glob("*/encoder_model.onnx") if "smoothed" not in path.parent.name)
    print("| variant | processor | kernels | tokens other | in utterances | dB |\n|---|---|---|---|---|---|", flush=True)
    for row in rows(
        args.build.resolve(), args.variant or built, args.processor or [*X86, *ARM], args.corpus.resolve(), args.work
    ):
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
