"""A stranger's package on the Hub, downloaded to be examined."""

from __future__ import annotations

from pathlib import Path

from nemoport.hub_id import split_hub_id
from nemoport.hub_package import no_client, unreachable
from nemoport.progress import Progress, step

# Graphs, their weights under any of the usual names, vocabularies and settings; no code.
PATTERNS = ("*.onnx", "*.onnx.data*", "*.onnx_data*", "*.data", "*.json", "*.txt", "*.model")


def downloaded(name: str, progress: Progress) -> Path:
    """Downloads organisation/name[@revision] into HF_HOME/nemoport, without links. Returns the folder. Raises ArtifactError."""
    repo, revision = split_hub_id(name) or (name, "")
    try:
        from huggingface_hub import constants, snapshot_download
    except ImportError as error:
        raise no_client(name, "a folder with graphs", error) from error
    place = Path(constants.HF_HOME) / "nemoport" / "doctor" / repo.replace("/", "--") / (revision or "main").replace("/", "--")
    try:
        with step(f"doctor: downloading {name}", progress):
            snapshot_download(repo, revision=revision or None, local_dir=place, allow_patterns=list(PATTERNS))
    except Exception as error:  # the classes of huggingface_hub's HTTP client differ from version to version
        raise unreachable(name, "a folder with graphs", "repository", error) from error
    return place
