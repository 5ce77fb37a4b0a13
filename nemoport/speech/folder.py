"""A folder of audio with texts in place of a manifest.

It has beside a.flac its text in a.txt; or a metadata.jsonl or metadata.csv in any of its folders, as the Hub's audio folders,
with `file_name`, a text column (as nemoport/speech/dataset.py names them) and, optionally, `language`: then only its rows count.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nemoport.errors import AudioError, CorpusError
from nemoport.inputs import audio_files
from nemoport.speech.dataset import TEXT_COLUMNS
from nemoport.speech.manifest import LONGEST_FIELD, MOST_FIELDS, Row
from nemoport.text import clipped

METADATA = ("metadata.jsonl", "metadata.csv")


def folder_rows(folder: Path) -> Iterator[Row]:
    """Yields the recordings of a folder in the order of their names, or of the rows of its metadata. Raises CorpusError."""
    if listed := sorted(path for path in folder.rglob("metadata.*") if path.name in METADATA):
        for path in listed:
            yield from _metadata_rows(folder, path)
        return
    try:
        names = audio_files(str(folder))
    except AudioError as error:
        raise CorpusError(f"There is no audio in {folder}.", expected=error.expected, found="none", todo=error.todo) from error
    for name in names:
        text = _content(beside) if (beside := Path(name).with_suffix(".txt")).is_file() else None
        yield Row(Path(name).relative_to(folder).as_posix(), Path(name), 0.0, 0.0, text or "", "", "", text is not None)


def _content(path: Path) -> str:
    try:
        return " ".join(path.read_text(encoding="utf-8-sig").split())
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path} cannot be read.", expected="a text in UTF-8", found=str(error), todo="mend it") from error


def _metadata_rows(folder: Path, metadata: Path) -> Iterator[Row]:
    try:
        with open(metadata, encoding="utf-8-sig", newline="") as stream:
            rows = csv.DictReader(stream) if metadata.suffix == ".csv" else (json.loads(line) for line in stream if line.strip())
            for row in rows:
                yield _row_of_metadata(row, folder, metadata)
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        raise CorpusError(
            f"{metadata} cannot be used.",
            expected=f"rows of file_name, one of {', '.join(TEXT_COLUMNS)}, and, optionally, language",
            found=clipped(str(error)),
            todo="mend it",
        ) from error


def _row_of_metadata(row: Any, folder: Path, metadata: Path) -> Row:
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
    return Row(path.relative_to(folder).as_posix(), path, 0.0, 0.0, text or "", language, language, text is not None, fields)
