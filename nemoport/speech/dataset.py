"""Manifests of speech data sets on the Hub, or of a folder laid out like one: FLEURS and others with its columns.

<folder>/<digest of data set, revision, split and limit>/<language>/   recordings as published, and manifest.jsonl
<folder>/<digest>/<digest of languages and shard>.jsonl                the manifest of one run
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemoport.errors import CorpusError, UsageError, first_line
from nemoport.files import digest_json, new_folder, write_bytes
from nemoport.progress import Progress, silent, step
from nemoport.runtime import check_installed
from nemoport.spec import ModelSpec
from nemoport.text import clipped, lines

# The first that is there.
TEXT_COLUMNS = ("transcription", "raw_transcription", "text", "sentence", "transcript", "normalized_text", "raw_text")
SEGMENT_COLUMNS = ("offset", "duration")  # of a manifest; without `offset` a duration is that of the recording
PARQUET = "refs/convert/parquet"  # where the Hub keeps data sets that have a loading script, which `datasets` 4 refuses
_CONFIGURATION = re.compile(r"[A-Za-z0-9][\w.+-]{0,99}")  # it becomes a folder
_ENDING = re.compile(r"\.[A-Za-z0-9]{1,8}")  # of a recording's name
# FLEURS' names of languages that models name otherwise.
KNOWN_AS = {"cmn_hans_cn": "zh-CN", "yue_hant_hk": "zh-HK", "es_419": "es-US", "ar_eg": "ar-AR"}


@dataclass(frozen=True)
class Part:
    """Part of a data set: of each language the first `limit` recordings (None: all), and of these every `shards`-th, from the
    `shard`-th on, counted from 1."""

    limit: int | None = None
    shard: int = 1
    shards: int = 1

    @staticmethod
    def parse(limit: int | None, shard: str | None) -> Part:
        """Parses the options of the command line. shard: "2/8" or None. Raises UsageError."""
        match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", shard or "1/1")
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError("The shard cannot be used.", expected="i/n with 1 <= i <= n", found=shard or "", todo="correct it")
        if limit is not None and limit < 1:
            raise UsageError("The limit cannot be used.", expected="1 or more", found=str(limit), todo="correct --limit")
        return Part(limit, int(match[1]), int(match[2]))


def dataset_manifest(
    dataset: str,
    languages: Sequence[str],
    folder: Path,
    spec: ModelSpec,
    split: str = "test",
    part: Part | None = None,
    revision: str | None = None,
    progress: Progress = silent,
) -> Path:
    """Fetches the recordings that are not in `folder` yet, a language at a time, and returns a manifest with the model's `lang`.

    languages: configurations of the data set, such as en_us. Raises CorpusError (no such data set, configuration or split;
    no audio or text in it), UsageError (a language that the model does not have), OutputError.
    """
    part = part or Part()
    check_configurations(languages)
    names = {language: model_language(language, spec) for language in languages}
    root = folder / digest_json([dataset, revision, split, part.limit])[:16]
    rows = []
    for language in languages:
        if not (root / language).is_dir():
            with step(f"dataset: {dataset}, {language}, {split}", progress), new_folder(root / language) as made:
                _fetch(dataset, language, split, revision, part.limit, made)
        every = [json.loads(line) for line in lines((root / language / "manifest.jsonl").read_text("utf-8"))]
        for row in every[part.shard - 1 :: part.shards]:
            rows.append({**row, "audio_filepath": f"{language}/{row['audio_filepath']}", "lang": names[language]})
    path = root / f"{digest_json([list(languages), part.shard, part.shards])[:16]}.jsonl"
    write_bytes(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    return path


def check_configurations(languages: Sequence[str]) -> None:
    """Raises UsageError for no name of a configuration, and for one that could leave its folder."""
    if not languages:
        raise UsageError("No language is named.", expected="--languages en_us,de_de", found="none", todo="name some")
    for language in languages:
        if not _CONFIGURATION.fullmatch(language):
            found, todo = clipped(repr(language)), "correct --languages"
            raise UsageError("That is no configuration.", expected="a name such as en_us", found=found, todo=todo)


def model_language(language: str, spec: ModelSpec) -> str:
    """Returns the model's name of a configuration's language; for a model without a prompt the configuration itself."""
    if spec.prompt is None:
        return language
    for name in (KNOWN_AS.get(language, language), language.partition("_")[0]):
        with suppress(UsageError):
            return spec.prompt.canonical_name(name)
    return spec.prompt.canonical_name(language)  # raises, with the nearest names


def _fetch(dataset: str, language: str, split: str, revision: str | None, limit: int | None, folder: Path) -> None:
    """Writes recordings and manifest.jsonl into `folder`; one that is the same in rows that follow each other once. Raises
    CorpusError."""
    rows, name, written = [], "", b""
    for number, (content, ending, fields) in enumerate(recordings(dataset, language, split, revision)):
        if number == limit:
            break
        if content != written:
            name, written = f"{number:05d}{ending}", content
            (folder / name).write_bytes(content)
        rows.append(json.dumps({"audio_filepath": name, **fields}, ensure_ascii=False))
    if not rows:
        raise CorpusError(
            f"{dataset} has nothing in {language}, {split}.", expected="recordings", found="none", todo="choose another split"
        )
    (folder / "manifest.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")


def recordings(dataset: str, language: str, split: str, revision: str | None) -> Iterator[tuple[bytes, str, dict[str, Any]]]:
    """Yields (file's content, ending of its name, text and segment for a manifest) of each row, undecoded: decoding here would
    need another library, and give the rate that the data set states in place of the file's own."""
    check_installed("A data set of the Hub", ("datasets",), "evaluate")
    from datasets import Audio

    try:
        rows = _open(dataset, language, split, revision)
        columns = rows.column_names or list(next(iter(rows)))
        text = next((column for column in TEXT_COLUMNS if column in columns), None)
        if "audio" not in columns or text is None:
            raise ValueError(f"columns {', '.join(columns)}")
        for row in rows.cast_column("audio", Audio(decode=False)):
            yield *_recording(row["audio"], dataset), {"text": _utf8(row[text] or ""), **_segment(row)}
    except Exception as error:  # `datasets` raises what its parts raise
        raise CorpusError(
            f"The data set {dataset} cannot be read.",
            expected=f"a configuration {language} with a split {split}, audio and one of {', '.join(TEXT_COLUMNS)}",
            found=f"{type(error).__name__}: {first_line(error)}",
            todo="check --dataset, --languages and --split, and the network",
        ) from error


def _segment(row: dict[str, Any]) -> dict[str, Any]:
    """The columns of a segment as a manifest has them; what is no number becomes a text, which its reader refuses by name."""
    found = {column: row[column] for column in SEGMENT_COLUMNS if "offset" in row and column in row}
    return {key: value if value is None or isinstance(value, int | float) else str(value) for key, value in found.items()}


def _recording(audio: dict, dataset: str) -> tuple[bytes, str]:
    """Returns the content of a row's file and the ending of its name. Raises ValueError, and what reading it raises.

    audio: {"bytes", "path"}. A path is read only below the data set's own folder: a row of a stranger could name any file here.
    """
    content, path = audio.get("bytes"), Path(audio.get("path") or "audio.wav")
    if not content:
        root = Path(dataset).resolve()
        if not (root.is_dir() and path.resolve().is_relative_to(root)):
            raise ValueError(f"a recording at {clipped(path)}, which is not in the data set")
        content = path.read_bytes()
    return content, path.suffix if _ENDING.fullmatch(path.suffix) else ""


def _utf8(text: str) -> str:
    text.encode()  # raises a ValueError for half a pair, which no file can hold
    return text


def _open(dataset: str, language: str, split: str, revision: str | None) -> Any:
    """Opens a data set for streaming, so that a limited run fetches only its beginning."""
    from datasets import load_dataset

    try:
        return load_dataset(dataset, language, split=split, revision=revision, streaming=True)
    except RuntimeError as error:
        if revision is not None or "script" not in str(error).lower():
            raise
        return load_dataset(dataset, language, split=split, revision=PARQUET, streaming=True)
