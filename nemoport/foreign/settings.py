"""What a folder's configuration says of its model, by whatever key: JSON files, and the metadata of graphs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nemoport.errors import ArtifactError
from nemoport.files import read_json
from nemoport.foreign.graph import Graph
from nemoport.foreign.listing import File
from nemoport.spec import ModelSpec

# What is said -> the keys that say it, in small letters and without _ and -.
KEYS = {
    "left context": (
        "leftcontext",
        "attentioncontext",
        "attcontextsize",
        "leftcontextencframes",
        "leftcontextframes",
        "cachelastchanneldim2",
    ),
    "normalisation": ("normalize", "normalizetype", "normalization", "featurenormalize"),
    "log guard": ("logeps", "logguard", "logzeroguardvalue", "logzeroguard"),
    "mel bands": ("nummels", "nmels", "nummelbins", "featuressize", "featdim", "melbins"),
    "blank": ("blankid", "blanktokenid", "blankidx", "blankindex"),
    "model type": ("modeltype", "type"),
    "streaming": ("cachelastchanneldim2", "preencodecachesize", "cacheshapes", "cachelastchannelshape", "chunkshift"),
    "prompt": ("promptdictionary", "autopromptid", "numprompts"),
}
_LEVELS = 8
_MOST = 2000


@dataclass(frozen=True)
class Stated:
    """One thing that a file says. what: a key of KEYS; place: the file, and the key as it spells it."""

    what: str
    value: Any
    place: str


@dataclass(frozen=True)
class Settings:
    """All that the files of a folder say, in their order. spec: of nemoport's own config.json."""

    stated: tuple[Stated, ...] = ()
    spec: ModelSpec | None = None

    def of(self, what: str) -> list[Stated]:
        return [one for one in self.stated if one.what == what]

    def left_contexts(self) -> list[tuple[int, str]]:
        """Each left context that is stated, in encoder frames, and where. NeMo writes [left, right], or several of them."""
        found = []
        for one in self.of("left context"):
            values = one.value if isinstance(one.value, list) else [one.value]
            first = values[0][0] if values and isinstance(values[0], list) and values[0] else values[0] if values else None
            if isinstance(first, int) and first > 0:
                found.append((first, one.place))
        return found


def read_settings(files: Iterable[File], graphs: Iterable[Graph]) -> tuple[Settings, dict[str, str]]:
    """Reads every JSON file and the graphs' metadata. Returns also the files that are no JSON object -> why."""
    stated: list[Stated] = []
    spec, broken = None, {}
    for file in files:
        try:
            raw = read_json(file.path, "download it again")
        except ArtifactError as error:
            broken[file.name] = error.found
            continue
        stated += _stated(raw, file.name)
        if file.name.rpartition("/")[2] == "config.json" and isinstance(raw.get("spec"), dict):
            try:
                spec = spec or ModelSpec.from_dict(raw["spec"])
            except ArtifactError as error:
                broken[file.name] = error.found
    for graph in graphs:
        stated += _stated({key: _number(value) for key, value in graph.metadata.items() if len(value) < 100}, graph.name)
    return Settings(tuple(stated[:_MOST]), spec), broken


def _stated(raw: Mapping[str, Any], place: str) -> Iterator[Stated]:
    level: list[Mapping[str, Any]] = [raw]
    for _ in range(_LEVELS):
        for one in level:
            for key, value in one.items():
                plain = key.lower().replace("_", "").replace("-", "")
                yield from (Stated(what, value, f"{place}: {key}") for what, keys in KEYS.items() if plain in keys)
        level = [value for one in level for value in one.values() if isinstance(value, dict)]


def _number(text: str) -> Any:
    return int(text) if text.lstrip("-").isascii() and text.lstrip("-").isdigit() and len(text) < 16 else text
