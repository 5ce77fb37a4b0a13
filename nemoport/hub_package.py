"""Packages on the Hub: a variant is downloaded once, with the files that all variants share, and opened like a local one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from nemoport.artifact import Artifact, variants_in
from nemoport.errors import ArtifactError, UsageError, first_line
from nemoport.files import write_bytes
from nemoport.hub_id import split_hub_id
from nemoport.text import clipped

# Where no variant is named, the first of these that is there is opened: the nearest to fp32 of the small and fast ones.
_PRECISIONS = ("int8-weight", "int8-dynamic", "int8-smoothquant", "int8-static", "fp32", "fp16")
PREFERRED = tuple(f"{layout}{precision}" for precision in _PRECISIONS for layout in ("kv-", ""))


def variant_folder(place: Path | str, variant: str | None = None) -> Path:
    """Returns the folder of a variant: `place` itself, a folder in it, or one that is downloaded from the Hub.

    place: a variant's folder; a build's or package's; or organisation/name of a package in the native layout on the Hub, with
    @revision or without. variant: by default the only one, or the first of PREFERRED that is there. The download is checked
    against its manifest, and kept under HF_HOME, beside the Hub's own cache: that one is of links, which runtimes do not follow
    to weights. Raises UsageError for a variant that the package does not have, ArtifactError where nothing can be had.
    """
    if variant is not None and (variant != Path(variant).name or variant in ("", ".", "..")):
        raise UsageError("This is not the name of a variant.", expected="a name such as int8-static", found=clipped(variant))
    with suppress(OSError, RuntimeError):  # a name that no file can have, or ~ of no user
        folder = Path(place).expanduser()
        if folder.exists() or split_hub_id(str(place)) is None:
            variant = variant or _default(variants_in(folder))
            return folder / variant if variant else folder
    return _downloaded(str(place), variant)


def _downloaded(name: str, variant: str | None) -> Path:
    repo, revision = split_hub_id(name) or (name, "")
    try:
        from huggingface_hub import HfApi, constants, snapshot_download
    except ImportError as error:
        raise no_client(name, "a variant's folder", error) from error
    kept = Path(constants.HF_HOME) / "nemoport" / repo.replace("/", "--")
    latest = kept / f"revision-{(revision or 'main').replace('/', '--')}"
    try:
        info = HfApi().model_info(repo, revision=revision or None)
    except Exception as error:  # the classes of huggingface_hub's HTTP client differ from version to version
        if variant and latest.is_file() and (folder := kept / latest.read_text() / variant).is_dir():
            return folder
        raise unreachable(name, "a variant's folder", "package", error) from error
    variant = _variant(name, info, variant)
    snapshot = kept / str(info.sha)
    if not (snapshot / variant / "manifest.json").is_file():
        try:
            snapshot_download(
                repo,
                revision=info.sha,
                local_dir=snapshot,
                # The manifest comes last, so that its presence shows a whole download.
                allow_patterns=["config.json", "shared/*", f"{variant}/*"],
                ignore_patterns=[f"{variant}/manifest.json"],
            )
            snapshot_download(repo, revision=info.sha, local_dir=snapshot, allow_patterns=[f"{variant}/manifest.json"])
        except Exception as error:
            raise unreachable(name, "a variant's folder", "package", error) from error
        try:
            Artifact.open(snapshot / variant).verify_files()
        except ArtifactError:
            (snapshot / variant / "manifest.json").unlink(missing_ok=True)
            raise
    write_bytes(latest, str(info.sha).encode())
    return snapshot / variant


def _variant(name: str, info: Any, variant: str | None) -> str:
    """Returns the variant to download, which the repository has. info: of `HfApi.model_info`."""
    files = [sibling.rfilename for sibling in info.siblings or ()]
    there = sorted(file.split("/")[0] for file in files if file.count("/") == 1 and file.endswith("/manifest.json"))
    if not there or "config.json" not in files:
        raise ArtifactError(
            f"{name} is no package of nemoport in the native layout.",
            expected="config.json and a folder with a manifest.json for each variant",
            found=clipped(", ".join(files)) or "no file",
            todo="name a package that `nemoport publish` made, or download what it is made for",
        )
    variant = variant or _default(there)
    if variant is None or variant not in there:
        raise UsageError(
            f"{name} has no variant {variant}." if variant else f"{name} holds several variants.",
            expected=", ".join(there),
            found=variant or "none named",
            todo=f"name one: variant={there[0]!r}, on the command line --variant {there[0]}",
        )
    return variant


def _default(there: Sequence[str]) -> str | None:
    return there[0] if len(there) == 1 else next((name for name in PREFERRED if name in there), None)


def no_client(name: str, folder: str, error: ImportError) -> ArtifactError:
    """Returns the error for a name that is no folder where huggingface_hub is not installed. folder: what was expected."""
    return ArtifactError(
        f"There is no folder {name}, and the Hub needs huggingface_hub.",
        expected=f"{folder}, or an installed huggingface_hub",
        found=first_line(error),
        todo="check the path, or pip install 'nemoport[publish]'",
    )


def unreachable(name: str, folder: str, what: str, error: Exception) -> ArtifactError:
    """Returns the error for a name that is neither a folder nor on the Hub. folder, what: that were expected, here and there."""
    return ArtifactError(
        f"There is no folder {name}, and no such {what} could be downloaded.",
        expected=f"{folder}, or a reachable Hub repository (log in first if it is gated)",
        found=first_line(error),
        todo="check the path or the id, the revision and the network",
    )
