"""One side of a comparison: a package, a build or a variant of nemoport's, or anybody's folder of ONNX graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nemoport.artifact import Artifact
from nemoport.errors import ArtifactError, UsageError
from nemoport.external_data import external_places
from nemoport.foreign import session as foreign
from nemoport.foreign.folder import ForeignFolder, ForeignModel, read_folder
from nemoport.frontend import mel_filterbank
from nemoport.hub_id import split_hub_id
from nemoport.hub_package import PREFERRED, variant_folder
from nemoport.interface import Interface
from nemoport.package.opening import artifact_folders
from nemoport.runtimes import open_session, runtime_of
from nemoport.session import Session
from nemoport.spec import Lookahead
from nemoport.tokens import read_tokens


@dataclass(frozen=True)
class Side:
    """A model that runs on one thread. name: for people; files: path -> bytes, of its graphs and weights; interfaces: of each
    graph, the encoder's first; pieces: text of each token, empty where the folder has none."""

    name: str
    session: Session
    filterbank: np.ndarray
    pieces: Sequence[str]
    lookaheads: tuple[Lookahead, ...]
    files: Mapping[str, int]
    interfaces: Mapping[str, Interface]


def open_side(place: str, variant: str | None = None) -> Side:
    """Opens a folder, or organisation/name of a native package on the Hub.

    variant: of nemoport's own its name; of another folder a part of the name of the encoder's graph. Raises ArtifactError for a
    folder that cannot be run, UsageError where it holds several models and none is named.
    """
    folder = Path(place)
    if not folder.exists() and split_hub_id(place) is not None:
        return _own(variant_folder(place, variant))
    try:
        own = artifact_folders(folder)
    except (ArtifactError, UsageError):  # not ours, or in the layout of a consumer, whose graphs are read as anybody's
        return _foreign(read_folder(folder), variant)
    return _own(own[_chosen(place, list(own), variant)])


def _own(folder: Path) -> Side:
    artifact = Artifact.open(folder)
    files = {entry.path: entry.bytes for entry in artifact.manifest.files.values()}
    session = open_session(artifact, threads=1)
    pieces = read_tokens(artifact.shared / "tokens.txt")
    interfaces = runtime_of(artifact).found(artifact)
    return Side(str(folder), session, artifact.filterbank(), pieces, artifact.lookaheads, files, interfaces)


def _foreign(folder: ForeignFolder, variant: str | None) -> Side:
    models = {model.name: model for model in folder.models}
    fitting = [name for name in models if variant is None or variant in name]
    model = models[fitting[0] if len(fitting) == 1 else _chosen(str(folder.path), list(models), variant)]
    session = foreign.open_session(model, folder)
    return Side(
        f"{folder.path}, {model.name}",
        session,
        mel_filterbank(session.spec.frontend),
        _pieces(folder, session.spec.decoding.vocab_size),
        session.spec.lookaheads,
        _files(model),
        {part.name: part.graph.interface for part in model.parts},
    )


def _pieces(folder: ForeignFolder, size: int) -> Sequence[str]:
    """The pieces of the first vocabulary that has one for each token; a piece for blank may follow."""
    return next((one.pieces[:size] for one in folder.vocabularies if len(one.pieces) in (size, size + 1)), ())


def _files(model: ForeignModel) -> dict[str, int]:
    found = {}
    for part in model.parts:
        places = {part.graph.path, *(part.graph.path.parent / place.file for place in external_places(part.graph.path))}
        found |= {f"{part.name}: {place.name}": place.stat().st_size for place in sorted(places)}
    return found


def _chosen(place: str, names: list[str], variant: str | None) -> str:
    if variant in names:
        return variant or ""
    if variant is None and len(names) == 1:
        return names[0]
    preferred = [name for name in PREFERRED if name in names] if variant is None else []
    if preferred:
        return preferred[0]
    raise UsageError(
        f"{place} has no model of this name." if variant else f"{place} holds several models.",
        expected=f"one of {', '.join(names)}",
        found=variant or "none named",
        todo="name it with --variant-a or --variant-b",
    )
