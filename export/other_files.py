"""What a file is that is no .nemo checkpoint, by its first bytes, and how to come from it to one."""

from __future__ import annotations

import zipfile
from contextlib import suppress
from pathlib import Path

from nemoport.errors import CheckpointError
from nemoport.export.transformers_files import needed_files
from nemoport.text import clipped

FIRST_BYTES = 512
_SAVE = "model.save_to('model.nemo')"
_TAKE_NEMO = "take the .nemo file of the same model"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
# (how the file begins, what it is, what to do)
_BEGINNINGS = (
    (b"version https://git-lfs", "a pointer of git-lfs, not the file itself", "fetch the file with `git lfs pull`"),
    (b"GGUF", "a GGUF file of llama.cpp or whisper.cpp", _TAKE_NEMO),
    (b"\x89HDF", "an HDF5 file", _TAKE_NEMO),
)
_LIGHTNING = f"restore it in NeMo and save it: model = EncDecRNNTBPEModel.load_from_checkpoint('x.ckpt'); {_SAVE}"
_WEIGHTS = f"load them in NeMo into a model of their config, model.load_state_dict(...), and save it: {_SAVE}"


def other_file(path: Path) -> tuple[str, str] | None:
    """Returns (what it is, what to do) for a file that is no tar and is known; None for any other, which may be damaged."""
    try:
        with path.open("rb") as file:
            start = file.read(FIRST_BYTES)
    except OSError:
        return None
    for beginning, what, todo in _BEGINNINGS:
        if start.startswith(beginning):
            return what, todo
    if not start:
        return "an empty file", "download or save it again"
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
        return "safetensors, the weights of Hugging Face transformers", "name the folder that holds it and its config.json"
    if start.startswith(b"PK"):
        return _zip(path)
    if start.startswith(b"\x80") and start[2:3] in (b"}", b"c", b"\x8a"):
        return "pickled Python objects: the weights alone, or a checkpoint of Lightning, in torch's older form", _LIGHTNING
    if start.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        return "a web page", "download the file itself: `hf download ORG/NAME FILE.nemo`"
    return None


def in_folder(folder: Path) -> Path:
    """Returns the one .nemo file in a folder, or the folder itself where there is none or there are several and it holds a model
    of Hugging Face transformers. Raises CheckpointError for any other."""
    names = sorted(path.name for path in folder.iterdir())
    found = [name for name in names if name.endswith(".nemo")]
    if len(found) == 1:
        return folder / found[0]
    if needed_files(names):
        return folder
    if "model_config.yaml" in names:
        todo = f"pack it: tar -cf model.nemo -C {clipped(folder)} ."
    elif any(name.endswith(".safetensors") for name in names):
        todo = "add config.json, tokenizer.json and the processor's config of the same model of Hugging Face transformers"
    elif "config.json" in names and any(name.endswith(_PICKLED) for name in names):
        todo = "save it again as safetensors, which hold no code: model.save_pretrained(folder)"
    elif any(name.endswith(".onnx") for name in names):
        todo = "name the .nemo file that was exported; `nemoport doctor` reads exported graphs"
    else:
        todo = "name the .nemo file"
    raise CheckpointError(
        f"{clipped(folder)} is a directory.",
        expected="a .nemo file, a directory with one, or a model of Hugging Face transformers",
        found=", ".join(found or map(clipped, names[:8])) or "an empty directory",
        todo=todo,
    )


def no_member(name: str, members: list[str]) -> tuple[str, str]:
    """Returns (what is wrong, what to do) for a tar without a member that a .nemo has."""
    if nested := next((member for member in members if member.endswith(".nemo")), ""):
        return f"a tar that holds {clipped(nested)}", "unpack it, and name that file"
    if folder := next((member.removesuffix(name) for member in members if member.endswith(f"/{name}")), ""):
        return f"no {name} in it, but {clipped(folder + name)}", f"pack it again: tar -cf model.nemo -C {clipped(folder)} ."
    return f"no {name} in it", "download or save it again"


def _zip(path: Path) -> tuple[str, str] | None:
    with suppress(zipfile.BadZipFile, OSError, ValueError, EOFError), zipfile.ZipFile(path) as parts:
        names = parts.namelist()
        if nested := next((name for name in names if name.endswith(".nemo")), ""):
            return f"a zip that holds {clipped(nested)}", "unpack it, and name that file"
        if any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
            if path.suffix == ".ckpt":
                return "a checkpoint of Lightning (.ckpt)", _LIGHTNING
            return "torch's file of weights alone, or a checkpoint of Lightning", f"{_LIGHTNING}; of weights alone: {_WEIGHTS}"
        return "a zip", "unpack it, and name the .nemo file in it"
    return None
