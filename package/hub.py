"""Upload of a package to the Hub, or the plan of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nemoport.errors import OutputError, UsageError, first_line
from nemoport.hub_id import split_hub_id
from nemoport.package.manifest import BESIDE, NAME, SIGNATURE, PackageManifest
from nemoport.package.verify import verify
from nemoport.progress import Progress, silent, step


def publish(
    folder: Path,
    repo_id: str,
    *,
    dry_run: bool = False,
    token: str | None = None,
    private: bool = False,
    revision: str | None = None,
    api: Any = None,
    progress: Progress = silent,
) -> list[str]:
    """Verifies the package, uploads it and returns a line for each thing done, or planned in a dry run.

    token: by default huggingface_hub's (HF_TOKEN, or the one of `hf auth login`); without any, this is a dry run.
    revision: a branch, created if it is absent; by default the main one. api: for tests, instead of
    huggingface_hub.HfApi. The same upload deletes files that the manifest of an earlier package in the repository lists
    and this one lacks; other files of the repository stay.

    Raises ArtifactError (damaged package), UsageError (not a repository's id), OutputError (the Hub refuses).
    """
    if split_hub_id(repo_id) != (repo_id, ""):
        raise UsageError(
            f"{repo_id!r} is not the id of a Hub repository.",
            expected="organisation/name, such as someone/nemotron-speech-streaming-en-0.6b-onnx",
            found=repr(repo_id),
            todo="name it with --repo",
        )
    checked = verify(folder, progress=progress)
    manifest = PackageManifest.read(folder)
    token = token or (None if dry_run else _stored_token())
    plan = _plan(folder, manifest, repo_id, private, revision)
    if dry_run or not token:
        reason = (
            "dry run"
            if dry_run
            else "dry run, since there is no token (set HF_TOKEN, run `hf auth login`, or use Trusted Publishers in CI)"
        )
        return [*checked, *plan, f"Nothing was uploaded: {reason}."]
    with step(f"publish: uploading {manifest.name}", progress):
        url = _upload(folder, manifest, repo_id, token, private, revision, api or _hub_api())
    return [*checked, *plan, f"Uploaded: {url}"]


def _plan(folder: Path, manifest: PackageManifest, repo_id: str, private: bool, revision: str | None) -> list[str]:
    sizes = {path: (folder / path).stat().st_size for path in _paths(folder, manifest)}
    signed = SIGNATURE in sizes
    kind = "private" if private else "public"
    return [
        f"Repository: https://huggingface.co/{repo_id}, created as a {kind} model if it is not there",
        f"Branch: {revision}, created if it is not there" if revision else "Branch: main",
        f"Licence: {manifest.licence}; base model: {manifest.base_model or 'none'}",
        f"Variants: {', '.join(manifest.variants)}",
        f"Signature: {f'{SIGNATURE}, as it is; not checked here' if signed else 'none; see `nemoport sign`'}",
        f"Files: {len(sizes)}, {sum(sizes.values()) / 1e6:.1f} MB; files of an earlier package that are not among them go",
        *(f"  {sizes[path]:>14,}  {path}" for path in sorted(sizes)),
    ]


def _upload(
    folder: Path, manifest: PackageManifest, repo_id: str, token: str, private: bool, revision: str | None, api: Any
) -> str:
    try:
        api.create_repo(repo_id, token=token, private=private, repo_type="model", exist_ok=True)
        if revision:
            api.create_branch(repo_id, branch=revision, token=token, exist_ok=True)
        # It streams, commits in parts and resumes when run again: huggingface_hub 2 has no upload_large_folder.
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            token=token,
            repo_type="model",
            revision=revision,
            commit_message=f"{manifest.name}: {', '.join(manifest.variants)} (package {manifest.digest[:12]})",
            allow_patterns=_paths(folder, manifest),
            delete_patterns=_stale(_paths(folder, manifest), repo_id, token, revision, api),
        )
    except Exception as error:  # the classes of huggingface_hub's HTTP client differ from version to version
        raise OutputError(
            f"The upload to {repo_id} failed.",
            expected="a repository that the token may write to",
            found=first_line(error),
            todo="check the id, the token and the network, and run it again: what has been uploaded is not sent twice",
        ) from error
    return str(commit)


def _paths(folder: Path, manifest: PackageManifest) -> list[str]:
    """Returns the paths of all that is uploaded: bytes as they are, since the signature is over them."""
    return [*(name for name in BESIDE if (folder / name).is_file()), *(entry.path for entry in manifest.files)]


def _stale(paths: list[str], repo_id: str, token: str, revision: str | None, api: Any) -> list[str]:
    """Returns the paths of the package in the repository that are not among `paths`, those of this one."""
    try:
        path = api.hf_hub_download(repo_id, NAME, revision=revision, token=token)
        earlier = {entry["path"] for entry in json.loads(Path(path).read_text(encoding="utf-8"))["files"]}
    except Exception:  # the repository holds no package of nemoport; a fault of the network shows in the upload
        return []
    stale = earlier.union(BESIDE).difference(paths)
    return sorted(path for path in stale if not set(path) & set("*?["))  # paths only: the Hub takes patterns


def _hub_api() -> Any:
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise UsageError(
            "Publishing needs huggingface_hub.",
            expected="the package huggingface_hub",
            found=str(error),
            todo="pip install 'nemoport[publish]'",
        ) from error
    return HfApi()


def _stored_token() -> str | None:
    """Returns huggingface_hub's token: in a CI job with HF_OIDC_RESOURCE one that the Hub gives for the job's identity (Trusted
    Publishers), for an hour and one repository. Raises UsageError where it gives none."""
    try:
        from huggingface_hub import get_token
    except ImportError:
        return None
    try:
        return get_token()
    except Exception as error:  # the classes of huggingface_hub differ from version to version
        raise UsageError(
            "The Hub gave this job no token.",
            expected="HF_OIDC_RESOURCE=organisation/name, a trusted publisher of it, and `id-token: write` of the job",
            found=first_line(error),
            todo="compare the repository's settings with the workflow, or unset HF_OIDC_RESOURCE to use HF_TOKEN",
        ) from error
