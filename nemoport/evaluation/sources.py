"""Data sets: a NeMo manifest, a folder of audio with texts, a data set of the Hub that is streamed.

A folder has beside a.flac its text in a.txt; or a metadata.jsonl or .csv in any of its folders, as the Hub's audio folders, with
`file_name`, a text column (as nemoport/speech/dataset.py names them) and, optionally, `language`: then only its rows count.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemoport.errors import AudioError, CorpusError, UsageError
from nemoport.evaluation.item import Item, ItemsDigest, numbered
from nemoport.inputs import audio_files
from nemoport.spec import ModelSpec
from nemoport.speech.dataset import TEXT_COLUMNS, check_configurations, model_language, recordings
from nemoport.speech.manifest import LONGEST_FIELD, MOST_FIELDS, Row, each_row
from nemoport.text import clipped

METADATA = ("metadata.jsonl", "metadata.csv")


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
    if limit is not None and limit < 1:
        raise UsageError("The limit cannot be used.", expected="1 or more", found=str(limit), todo="correct --limit")
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


def _item_of_row(row: Row) -> Item:
    text, prompt_language = row.text if row.has_text else None, row.prompt_language or row.language
    id = f"{row.name}, {row.offset_s:.3f}+{row.duration_s:.3f} s" if row.offset_s else row.name
    return Item(id, str(row.path.absolute()), row.offset_s, row.duration_s, text, row.language, prompt_language, dict(row.fields))


def _folder_items(folder: Path) -> Iterator[Item]:
    if listed := sorted(path for path in folder.rglob("metadata.*") if path.name in METADATA):
        for path in listed:
            yield from _metadata_items(folder, path)
        return
    try:
        names = audio_files(str(folder))
    except AudioError as error:
        raise CorpusError(f"There is no audio in {folder}.", expected=error.expected, found="none", todo=error.todo) from error
    for name in names:
        path, text = Path(name).absolute(), Path(name).with_suffix(".txt")
        yield Item(Path(name).relative_to(folder).as_posix(), str(path), text=_content(text) if text.is_file() else None)


def _content(path: Path) -> str:
    try:
        return " ".join(path.read_text(encoding="utf-8-sig").split())
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path} cannot be read.", expected="a text in UTF-8", found=str(error), todo="mend it") from error


def _metadata_items(folder: Path, metadata: Path) -> Iterator[Item]:
    try:
        with open(metadata, encoding="utf-8-sig", newline="") as stream:
            rows = csv.DictReader(stream) if metadata.suffix == ".csv" else (json.loads(line) for line in stream if line.strip())
            for row in rows:
                yield _item_of_metadata(row, folder, metadata)
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        raise CorpusError(
            f"{metadata} cannot be used.",
            expected=f"rows of file_name, one of {', '.join(TEXT_COLUMNS)}, and, optionally, language",
            found=clipped(str(error)),
            todo="mend it",
        ) from error


def _item_of_metadata(row: Any, folder: Path, metadata: Path) -> Item:
    """Raises ValueError."""
    name = row.get("file_name") if isinstance(row, dict) else None
    path = metadata.parent / str(name)
    if not isinstance(name, str) or not name or not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"no file_name in the folder: {clipped(repr(row), 80)}")
    text = next((row[column] for column in TEXT_COLUMNS if isinstance(row.get(column), str)), None)
    language = str(row.get("language") or row.get("lang") or "")
    scalars = {key: str(value) for key, value in row.items() if isinstance(key, str) and isinstance(value, str | int | float)}
    known = ("file_name", "language", "lang", *TEXT_COLUMNS)
    fields = {key: value for key, value in scalars.items() if key not in known and len(key + value) <= LONGEST_FIELD}
    fields = dict(list(fields.items())[:MOST_FIELDS])
    "".join([name, text or "", language, *fields, *fields.values()]).encode()  # a ValueError for half a pair of UTF-16
    return Item(path.relative_to(folder).as_posix(), str(path.absolute()), 0.0, 0.0, text, language, language, fields)


def _seconds(row: dict[str, Any], key: str, name: str) -> float:
    value = row.get(key)
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CorpusError(f"{key} of {name} is not a number.", expected="seconds", found=clipped(repr(value)), todo="correct it")
    return max(0.0, float(value))
