"""Variants of a folder, whatever it is: of a package in any layout, of a build, or one variant's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nemoport.artifact import Artifact, variants_in
from nemoport.errors import ArtifactError, UsageError
from nemoport.package.layout import Layout
from nemoport.package.layouts import load_layout
from nemoport.package.manifest import NAME, PackageManifest
from nemoport.package.verify import open_graphs
from nemoport.runtimes import open_session
from nemoport.session import Session
from nemoport.spec import Lookahead


@dataclass(frozen=True)
class Opened:
    """A variant that runs. place: of it, for messages; lookaheads: that it serves; first_windows: whether its graphs know a
    first window from a later one, as nemoport's own do: consumers of other layouts feed silence before it."""

    name: str
    place: Path
    session: Session
    lookaheads: tuple[Lookahead, ...]
    first_windows: bool


def variants_of(folder: Path, wanted: Sequence[str] | None = None) -> dict[str, Callable[[], Opened]]:
    """Returns name -> what opens the variant, of those in `folder`, or of `wanted` ones.

    Raises ArtifactError where there are none, UsageError for one that is not there; what opens raises as `open_session`.
    """
    found = _found(folder)
    if unknown := sorted(set(wanted or ()) - set(found)):
        raise UsageError(
            f"{folder} has no variant {', '.join(unknown)}.",
            expected=f"one of {', '.join(sorted(found))}",
            found=", ".join(unknown),
            todo="name a variant of this folder",
        )
    return {name: found[name] for name in wanted or found}


def artifact_folders(folder: Path) -> dict[str, Path]:
    """Returns name -> folder of the variants that nemoport itself opens: of a package, a build, or a variant's own. Raises
    ArtifactError; UsageError for a package in the layout of a consumer alone."""
    if not folder.is_dir():
        raise ArtifactError(
            f"There is no folder {folder}.",
            expected="a package, a build, or the folder of a variant",
            found="a file" if folder.exists() else "nothing",
            todo="name a folder that `nemoport package`, `run` or `export` wrote, or download one (`hf download --local-dir`)",
        )
    if names := variants_in(folder):
        return {name: folder / name for name in names}
    if (folder.parent / "config.json").is_file() and (folder / NAME).is_file():
        return {Artifact.open(folder).manifest.variant: folder}
    manifest = PackageManifest.read(folder)
    layout = load_layout(manifest.layout)
    if layout.artifact_folder is None:
        raise UsageError(
            f"The layout {manifest.layout} is for its consumer alone.",
            expected="a build, or a package whose variants nemoport opens, such as one in the layout native",
            found=manifest.layout,
            todo="name the build, or the native package of the same variants",
        )
    return {name: layout.artifact_folder(folder, name) for name in manifest.variants}


def _found(folder: Path) -> dict[str, Callable[[], Opened]]:
    try:
        return {name: _own(name, place) for name, place in artifact_folders(folder).items()}
    except UsageError:
        manifest = PackageManifest.read(folder)
        return {name: _consumers(name, folder, load_layout(manifest.layout)) for name in manifest.variants}


def _own(name: str, place: Path) -> Callable[[], Opened]:
    def opened() -> Opened:
        artifact = Artifact.open(place)
        return Opened(name, place, open_session(artifact, threads=1), artifact.lookaheads, first_windows=True)

    return opened


def _consumers(name: str, folder: Path, layout: Layout) -> Callable[[], Opened]:
    def opened() -> Opened:
        place, session, lookaheads = open_graphs(folder, layout, name)
        return Opened(name, place, session, lookaheads, first_windows=False)

    return opened
