"""Reads manifests as NeMo does (nemo/collections/common/parts/preprocessing/manifest.py), and refuses by name what it cannot use.

What differs from NeMo: a byte order mark is passed over and `duration` may be missing; `_skipme`, which NeMo's newer reader has,
counts; an empty `text` may be null.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from nemoport.errors import CorpusError
from nemoport.text import clipped

AUDIO_KEYS = ("audio_filename", "audio_filepath", "context", "audio_file")  # NeMo takes the first that is there
TEXT_KEYS = ("text", "normalized_text", "text_filepath")
MOST_FIELDS, LONGEST_FIELD = 16, 100  # of a row, kept beside what is read; characters
MOST_SHOWN = 5  # bad lines that an error names
LONGEST_RELATIVE = 255  # characters of a path that NeMo looks for beside the manifest
_TARRED = "an entry of a tarred data set; unpack its shards beside the manifest"


@dataclass(frozen=True)
class Row:
    """One line of a manifest. offset_s: 0 is the beginning; duration_s: 0 reaches to the end."""

    name: str  # as the manifest has it
    path: Path
    offset_s: float
    duration_s: float
    text: str
    language: str  # `lang`, the spoken one
    prompt_language: str  # `target_lang`: the prompt of a model that takes one, where it is another
    has_text: bool = True  # not where the line has no key of a transcript
    fields: Mapping[str, str] = field(default_factory=dict)  # what else it says in a word or a number, such as a speaker


def read_rows(manifest: Path) -> list[Row]:
    """Reads a manifest: one JSON object a line with `audio_filepath` and, optionally, `offset`, `duration`, `text`, `lang` and
    `target_lang`. Lines end with LF, CR or both, and may be empty. Raises CorpusError naming all bad lines at once."""
    return list(each_row(manifest))


def each_row(manifest: Path, *, must_exist: bool = True) -> Iterator[Row]:
    """Reads a manifest as `read_rows`, row by row: bad lines are named when the end is reached. must_exist: a file that is not
    there makes a bad line. Raises CorpusError."""
    problems, bad, found = [], 0, False
    for number, line in enumerate(_lines(manifest), 1):
        try:
            if line.strip() and (row := _row(json.loads(line.strip()), manifest, must_exist)):
                found = True
                yield row
            continue
        # OSError: a name that no file can have; OverflowError: a number of seconds that no float can have
        except (ValueError, TypeError, OverflowError, OSError, RecursionError) as error:
            problem = f"line {number}: {type(error).__name__}: {error}"
        except _Unusable as error:
            problem = f"line {number}: {error}"
        bad += 1
        problems += [problem] if bad <= MOST_SHOWN else []
    if bad or not found:
        shown = "; ".join(problems) + (f"; and {bad - MOST_SHOWN} more" if bad > MOST_SHOWN else "")
        raise CorpusError(
            f"The manifest {manifest} cannot be used.",
            expected='one JSON object a line: {"audio_filepath": ..., "text": ...}, with files that exist',
            found=shown or "no utterance",
            todo="mend these lines",
        )


class _Unusable(Exception):
    """What is wrong with a line."""


def _lines(manifest: Path) -> Iterator[str]:
    try:
        with open(manifest, encoding="utf-8-sig") as stream:  # which turns a CR alone to LF too, as NeMo
            yield from stream
    except (OSError, UnicodeDecodeError) as error:
        sharded = "_OP_" in manifest.name or any(c in str(manifest) for c in "{,")
        raise CorpusError(
            f"The manifest {manifest} cannot be read.",
            expected="one NeMo manifest (JSON lines), in UTF-8",
            found=f"a list or a pattern of several; {error}" if sharded else str(error),
            todo="join the manifests to one; of tarred ones unpack the shards too" if sharded else "check the path",
        ) from error


def _row(row: Any, manifest: Path, must_exist: bool) -> Row | None:
    """Returns None for a row that is marked to be skipped. Raises _Unusable, and what reading a wrong type raises."""
    if not isinstance(row, dict):
        raise _Unusable(f"a JSON object was expected, not {clipped(json.dumps(row), 40)}")
    if row.get("_skipme"):
        return None
    offset_s, duration_s = (_seconds(row, key) for key in ("offset", "duration"))
    if row.get("channel_selector") not in (None, "average"):
        raise _Unusable("channel_selector: channels are averaged; write the chosen one to a file of its own")
    name, path = _found(row, manifest, must_exist)
    texts = [_text(row, manifest), row.get("lang") or "", row.get("target_lang") or ""]
    if not all(isinstance(one, str) for one in texts):
        raise _Unusable("text, lang or target_lang is not a string")
    fields, has_text = _fields(row), any(key in row for key in TEXT_KEYS)
    "".join([*texts, *fields, *fields.values()]).encode()  # raises a ValueError for half a pair of UTF-16, which no file can hold
    return Row(name, path, max(0.0, offset_s), max(0.0, duration_s), *texts, has_text=has_text, fields=fields)


def _fields(row: dict[str, Any]) -> dict[str, str]:
    """Returns the fields that evaluation can be grouped by: those of one word, number or truth, without what Row has."""
    known = (*AUDIO_KEYS, *TEXT_KEYS, "offset", "duration", "lang", "target_lang", "channel_selector", "_skipme")
    short = ((key, str(value)) for key, value in row.items() if key not in known and isinstance(value, str | int | float))
    return {key: value for key, value in list(short)[:MOST_FIELDS] if max(len(key), len(value)) <= LONGEST_FIELD}


def _seconds(row: dict[str, Any], key: str) -> float:
    """Reads a number of seconds; 0 for one that is missing or null."""
    value = row.get(key)
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _Unusable(f"{key} is not a number of seconds: {clipped(repr(value), 40)}")
    return float(value)


def _found(row: dict[str, Any], manifest: Path, must_exist: bool) -> tuple[str, Path]:
    """Returns the row's name of its file, and where NeMo's `get_full_path` finds it: beside the manifest, else as the path says,
    `~` being the home folder."""
    name = next((row[key] for key in AUDIO_KEYS if key in row), None)
    if isinstance(name, list):
        raise _Unusable("several files, one a channel; mix them to one file")
    if name is None and ("video_filepath" in row or "video_filename" in row):
        raise _Unusable("a video; extract its sound, for example with `ffmpeg -i in.mp4 out.wav`")
    if not isinstance(name, str) or not name:
        raise _Unusable("no audio_filepath")
    url = urlparse(name)
    if url.scheme and url.netloc:
        raise _Unusable(f"{clipped(name)} is in a data store; fetch it and give its path here")
    beside = manifest.parent / name
    path = beside if len(name) < LONGEST_RELATIVE and beside.is_file() else Path(os.path.expanduser(name))
    if must_exist and not path.is_file():
        tarred = "shard_id" in row or (manifest.name == "tarred_audio_manifest.json" and "/" not in name)
        raise _Unusable(f"{clipped(name)} is {_TARRED}" if tarred else f"no file {beside}")
    return name, path


def _text(row: dict[str, Any], manifest: Path) -> Any:
    """Returns the transcript as NeMo finds it; "" where there is none. A `text_filepath` that is not found in the working folder,
    where NeMo looks, is looked for beside the manifest."""
    if "text" not in row and "text_filepath" in row:
        found = [path for path in (Path(row["text_filepath"]), manifest.parent / row["text_filepath"]) if path.is_file()]
        if not found:
            raise _Unusable(f"text_filepath: no file {clipped(row['text_filepath'])}")
        return found[0].read_text(encoding="utf-8").replace("\n", "")
    return row.get("text", row.get("normalized_text")) or ""
