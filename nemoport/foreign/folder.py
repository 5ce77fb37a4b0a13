"""Anybody's folder: its graphs, which of them make up a model, its vocabularies and settings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nemoport.errors import ArtifactError
from nemoport.foreign import ports, vocabulary
from nemoport.foreign.graph import Graph, read_graph
from nemoport.foreign.listing import File, list_files, shared_files
from nemoport.foreign.ports import Ports, ports_of
from nemoport.foreign.settings import Settings, read_settings
from nemoport.foreign.vocabulary import Vocabulary, read_vocabulary

_MOST_JSON = 200
_PARTS = ("encoder", "decoder", "joint", "joiner", "model", "predictor", "onnx", "nemotron", "ctc", "head")


@dataclass(frozen=True)
class Part:
    """A graph and what its tensors are."""

    graph: Graph
    ports: Ports

    @property
    def name(self) -> str:
        return self.graph.name


@dataclass(frozen=True)
class ForeignModel:
    """Graphs that belong together. encoder: also of a CTC model in one graph; fused: decoder and joint in one; or predictor and
    joiner; or scorer, a CTC decoder. Those that are not there are None."""

    encoder: Part
    fused: Part | None = None
    predictor: Part | None = None
    joiner: Part | None = None
    scorer: Part | None = None

    @property
    def name(self) -> str:
        return self.encoder.name

    @property
    def parts(self) -> list[Part]:
        return [part for part in (self.encoder, self.fused, self.predictor, self.joiner, self.scorer) if part]

    @property
    def scores(self) -> Part | None:
        """The graph whose last axis is tokens, blank and durations."""
        return self.fused or self.joiner or self.scorer or (self.encoder if self.encoder.ports.role == ports.CTC else None)

    @property
    def n_scores(self) -> int | None:
        """Scores of a frame, by the graph; None where it does not state them."""
        part = self.scores
        port = part.ports.outputs.get(ports.SCORES) or part.ports.outputs.get("outputs") if part else None
        return port.tensor.shape[-1] if port and port.tensor.shape else None

    @property
    def head(self) -> str:
        """`transducer`, `ctc`, or "" where there is no decoder."""
        return "ctc" if self.scorer or self.encoder.ports.role == ports.CTC else "transducer" if self.scores else ""


@dataclass(frozen=True)
class ForeignFolder:
    """What is in a folder. models: one for each encoder; others: graphs that belong to none, such as a front end; broken: a
    file's name -> why it cannot be used; repository: its id on the Hub, where it came from there."""

    path: Path
    files: Sequence[File]
    models: Sequence[ForeignModel]
    others: Sequence[Part]
    vocabularies: Sequence[Vocabulary]
    settings: Settings
    broken: Mapping[str, str]
    repository: str = ""

    @property
    def parts(self) -> list[Part]:
        """Every graph that can be read, once."""
        found = {part.name: part for model in self.models for part in model.parts} | {part.name: part for part in self.others}
        return [found[name] for name in sorted(found)]


def read_folder(folder: Path | str, repository: str = "") -> ForeignFolder:
    """Reads a folder. Raises ArtifactError for one without a graph and without a file that should be one."""
    folder = Path(folder)
    files = [*list_files(folder), *shared_files(folder)]
    broken = {file.name: file.problem for file in files if file.problem and _is_read(file.name)}
    graphs: list[Graph] = []
    found: list[Vocabulary] = []
    for file in files:
        if file.problem:
            continue
        try:
            if file.name.endswith(".onnx"):
                graphs.append(read_graph(file.name, file.path))
            elif vocabulary.form_of(file.name):
                found.append(read_vocabulary(file))
        except ArtifactError as error:
            broken[file.name] = error.found or error.what
    if not graphs and not any(name.endswith(".onnx") for name in broken):
        raise ArtifactError(
            f"{folder} holds no ONNX graph.",
            expected="graphs *.onnx of a recogniser",
            found=", ".join(file.name for file in files[:8]) or "an empty folder",
            todo="name the folder with the graphs; those of OpenVINO, LiteRT and Apple's formats are not examined",
        )
    forms = [file for file in files if file.name.endswith(".json") and not file.problem and not vocabulary.form_of(file.name)]
    settings, unread = read_settings(forms[:_MOST_JSON], graphs)
    parts = [Part(graph, ports_of(graph.interface)) for graph in graphs]
    models = _models(parts)
    used = {part.name for model in models for part in model.parts}
    others = [part for part in parts if part.name not in used]
    return ForeignFolder(folder, files, models, others, found, settings, broken | unread, repository)


def _is_read(name: str) -> bool:
    return name.endswith((".onnx", ".json")) or bool(vocabulary.form_of(name))


def _models(parts: Sequence[Part]) -> list[ForeignModel]:
    encoders = [part for part in parts if part.ports.role in (ports.ENCODER, ports.CTC)]
    return [_model(encoder, parts) for encoder in encoders]


def _model(encoder: Part, parts: Sequence[Part]) -> ForeignModel:
    if encoder.ports.role == ports.CTC:
        return ForeignModel(encoder)
    fused = _nearest(encoder, parts, ports.FUSED)
    predictor, joiner = (_nearest(encoder, parts, role) for role in (ports.PREDICTOR, ports.JOINER))
    if fused or (predictor and joiner):
        return ForeignModel(encoder, fused, *((None, None) if fused else (predictor, joiner)))
    return ForeignModel(encoder, None, predictor, joiner, _nearest(encoder, parts, ports.SCORER))


def _nearest(encoder: Part, parts: Sequence[Part], role: str) -> Part | None:
    """The graph of a role in the encoder's folder whose name has the same precision, else none, else the only one."""
    here = [part for part in parts if part.ports.role == role and _folder(part) == _folder(encoder)]
    same = [part for part in here if _marks(part) == _marks(encoder)]
    plain = [part for part in here if not _marks(part)]
    return next(iter(same or plain or (here if len(here) == 1 else [])), None)


def _folder(part: Part) -> str:
    return part.name.rpartition("/")[0]


def _marks(part: Part) -> frozenset[str]:
    """The words of a graph's name that are no word for a part: its precision."""
    return frozenset(re.split(r"[^a-z0-9]+", part.name.rpartition("/")[2].lower())) - {*_PARTS, ""}
