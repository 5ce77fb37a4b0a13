"""Resolves the name of a checkpoint: a local path, or a Hub id, which is downloaded.

Where both a .nemo file and a folder of Hugging Face transformers are there, the .nemo file is taken: it is what the other was
converted from, and has its config and its tokenizer whole.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from nemoport.errors import CheckpointError, first_line
from nemoport.export.other_files import in_folder
from nemoport.export.transformers_files import needed_files
from nemoport.hub_id import split_hub_id


def resolve(checkpoint: str) -> tuple[Path, str]:
    """Resolves a local path, or a Hub id such as org/name@revision -> (path of the .nemo file or of a folder of transformers, Hub
    id or "").

    Of a repository the one .nemo file is downloaded; where there is none or there are several, what is read of a model of
    transformers. Raises CheckpointError where there is no such file, or no single one in the repository, or the download fails.
    """
    path = Path(checkpoint)
    with suppress(OSError, RuntimeError):  # a name that no file can have, or ~ of no user
        path = path.expanduser()
        if path.exists():
            return (in_folder(path) if path.is_dir() else path), ""
    named = split_hub_id(checkpoint)
    if checkpoint.endswith(".nemo") or named is None:
        raise CheckpointError(
            f"There is no checkpoint at {checkpoint}.",
            expected="a .nemo file, a folder of Hugging Face transformers, or a Hub id such as "
            "nvidia/nemotron-speech-streaming-en-0.6b@revision",
            found="no such file",
            todo="check the path",
        )
    repo, revision = named[0], named[1] or None
    try:
        from huggingface_hub import HfApi, hf_hub_download, snapshot_download

        files = HfApi().list_repo_files(repo, revision=revision)
        names = [name for name in files if name.endswith(".nemo")]
        if len(names) != 1 and (needed := needed_files(files)):
            return Path(snapshot_download(repo, revision=revision, allow_patterns=needed)), checkpoint
        if len(names) != 1:
            raise CheckpointError(
                f"{checkpoint} does not hold one checkpoint.",
                expected="one .nemo file, or config.json and model.safetensors of Hugging Face transformers",
                found=", ".join(names) or "none",
                todo="download the file you want and name its path",
            )
        return Path(hf_hub_download(repo, names[0], revision=revision)), checkpoint
    except ImportError as error:
        raise CheckpointError(
            f"{checkpoint} is no local file, and downloading needs huggingface_hub.",
            expected="a local .nemo file or an installed huggingface_hub",
            found=str(error),
            todo="pip install 'nemoport[publish]'",
        ) from error
    except CheckpointError:
        raise
    except Exception as error:  # the classes of huggingface_hub's HTTP client differ from version to version
        raise CheckpointError(
            f"{checkpoint} could not be downloaded.",
            expected="a reachable Hub repository (log in first if it is gated)",
            found=first_line(error),
            todo="check the id, the revision, the network; or download the .nemo and name its path",
        ) from error
