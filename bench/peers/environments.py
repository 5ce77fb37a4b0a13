"""Environments of their own for implementations that are compared with ours, with pinned versions.

    python bench/peers/environments.py [NAME]...

ggml: CrispASR and transcribe.cpp; genai: onnxruntime-genai; onnxruntime-1.32: the packages alone, to be put before ours on the
path of modules (PYTHONPATH).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
from pathlib import Path

BUILD = Path(__file__).resolve().parents[2] / "build"
FOLDERS = {
    "ggml": BUILD / "peers" / "ggml",
    "genai": BUILD / "genai" / "venv",
    "onnxruntime-1.32": BUILD / "peers" / "onnxruntime-1.32",
}
PACKAGES = {
    "ggml": ("crispasr==0.8.45", "transcribe-cpp==0.4.1", "transcribe-cpp-native==0.4.1", "numpy==2.4.6"),
    "genai": ("onnxruntime-genai==0.18.0", "onnxruntime==1.32.0", "numpy==2.4.6", "soundfile==0.14.0"),
}
ON_THE_PATH = {"onnxruntime-1.32": ("onnxruntime==1.32.0",)}


def python_of(name: str) -> Path:
    """The Python of an environment, whether it has been made or not."""
    return FOLDERS[name] / "bin" / "python"


def is_made(name: str) -> bool:
    return (FOLDERS[name] / "installed").is_file()


def make(name: str) -> None:
    """Makes an environment where it is absent."""
    folder, alone = FOLDERS[name], name in ON_THE_PATH
    if not is_made(name):
        if alone:
            pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", folder]
        else:
            venv.create(folder, with_pip=True)
            pip = [python_of(name), "-m", "pip", "install"]
        subprocess.run([*pip, "--quiet", "--disable-pip-version-check", *(ON_THE_PATH if alone else PACKAGES)[name]], check=True)
        (folder / "installed").touch()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: {' '.join(FOLDERS)}")
    for name in parser.parse_args().names or FOLDERS:
        make(name)
        print(FOLDERS[name], flush=True)


if __name__ == "__main__":
    main()
