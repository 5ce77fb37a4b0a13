"""A stranger's package on the Hub, downloaded to be examined."""

from __future__ import annotations

from pathlib import Path

from nemoport.errors import ArtifactError, first_line
from nemoport.hub_id import split_hub_id
from nemoport.progress import Progress, step

# Graphs, their weights under any of the usual names, vocabularies and settings; no code.
PATTERNS = ("*.onnx", "*.onnx.data*", "*.onnx_data*", "*.data", "*.json", "*.txt", "*.model")


def downloaded(name: str, progress: Progress) -> Path:
    """Downloads organisation/name[@revision] into HF_HOME/nemoport, without links. Returns the folder. Raises ArtifactError."""
    repo, revision = split_hub_id(name) or (name, "")
    try:
        from huggingface_hub import constants, snapshot_download
    except ImportError as error:
        raise ArtifactError(
            f"There is no folder {name}, and the Hub needs huggingface_hub.",
            expected="a folder with graphs, or an installed huggingface_hub",
            found=first_line(error),
            todo="check the path, or pip install 'nemoport[publish]'",
        ) from error
    place = Path(constants.HF_HOME) / "nemoport" / "doctor" / repo.replace("/", "--") / (revision or "main").replace("/", "--")
    try:
        with step(f"doctor: downloading {name}", progress):
            snapshot_download(repo, revision=revision or None, local_dir=place, allow_patterns=list(PATTERNS))
    except Exception as error:  # the classes of huggingface_hub's HTTP client differ from version to version
        raise ArtifactError(
            f"There is no folder {name}, and no such repository could be downloaded.",
            expected="a folder with graphs, or a reachable Hub repository (log in first if it is gated)",
            found=first_line(error),
            todo="check the path or the id, the revision and the network",
        ) from error
    return place
