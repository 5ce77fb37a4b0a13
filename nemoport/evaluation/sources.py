"""Data sets: a NeMo manifest, a folder of audio with texts (speech/folder.py), a data set of the Hub that is streamed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemoport.errors import CorpusError
from nemoport.evaluation.item import Item, ItemsDigest, numbered
from nemoport.spec import ModelSpec
from nemoport.speech.dataset import Part, check_configurations, model_language, recordings
from nemoport.speech.folder import folder_rows
from nemoport.speech.manifest import Row, each_row
from nemoport.text import clipped


@dataclass(frozen=True)
class DataSet:
    """description: what names it, in results; items: lists its utterances anew; release: is called with each that is done;
    count: of utterances, None where it is streamed."""

    description: dict[str, Any]
    items: Callable[[], Iterator[Item]]
    release: Callable[[Item], None] = lambda item: None
    count: int | None = None


def open_data(place: Path) -> DataSet:
    """Opens a manifest or a folder, and reads through it once for its digest. Raises CorpusError."""
    kind, listed = ("folder", _folder_items) if place.is_dir() else ("manifest", _manifest_items)
    digest = ItemsDigest()
    for item in numbered(listed(place)):
        digest.add(item)
    description = {"kind": kind, "name": place.name, "count": digest.count, "digest": str(digest)}
    return DataSet(description, lambda: numbered(listed(place)), count=digest.count)


def stream_data(
    dataset: str,
    languages: Sequence[str],
    spool: Path,
    spec: ModelSpec,
    split: str = "test",
    limit: int | None = None,
    revision: str | None = None,
) -> DataSet:
    """Streams a data set of the Hub, or a folder laid out like one: each recording is a file in `spool` until it is released.

    languages: configurations; limit: recordings of each. Raises UsageError; its items raise CorpusError.
    """
    check_configurations(languages)
    Part.parse(limit, None)  # refuses a limit below 1
    names, spool = {language: model_language(language, spec) for language in languages}, spool.absolute()

    def items() -> Iterator[Item]:
        spool.mkdir(parents=True, exist_ok=True)
        for language in languages:
            for number, (content, ending, row) in enumerate(recordings(dataset, language, split, revision)):
                if number == limit:
                    break
                path = spool / f"{language}-{number:08d}{ending}"
                path.write_bytes(content)
                offset_s, duration_s = (_seconds(row, key, path.name) for key in ("offset", "duration"))
                name = names[language]
                yield Item(f"{language}/{number:08d}", str(path), offset_s, duration_s, row["text"], name, name)

    described = {"dataset": dataset, "languages": [*languages], "split": split, "limit": limit, "revision": revision}
    return DataSet({"kind": "stream", **described}, items, lambda item: Path(item.path).unlink(missing_ok=True))


def _manifest_items(manifest: Path) -> Iterator[Item]:
    return map(_item_of_row, each_row(manifest, must_exist=False))


def _folder_items(folder: Path) -> Iterator[Item]:
    return map(_item_of_row, folder_rows(folder))


def _item_of_row(row: Row) -> Item:
    text, prompt_language = row.text if row.has_text else None, row.prompt_language or row.language
    id = f"{row.name}, {row.offset_s:.3f}+{row.duration_s:.3f} s" if row.offset_s else row.name
    return Item(id, str(row.path.absolute()), row.offset_s, row.duration_s, text, row.language, prompt_language, dict(row.fields))


def _seconds(row: dict[str, Any], key: str, name: str) -> float:
    value = row.get(key)
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CorpusError(f"{key} of {name} is not a number.", expected="seconds", found=clipped(repr(value)), todo="correct it")
    return max(0.0, float(value))
