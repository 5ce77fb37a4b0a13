"""What gates keep besides their figures, for the page: the texts that differ from NeMo's, and a long stream by its time.

A gate puts it into `Context.details`; it is written before the gate's results, with their stamps, and counts only as long as the
results have the same ones. Results without it, as of an earlier version, are as good; the page says what it cannot show.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import with_config
from typing_extensions import TypedDict  # pydantic reads those of `typing` from Python 3.12 on

from nemoport.buffered import ChunkContext
from nemoport.files import read_json, write_json
from nemoport.schema import CLOSED, check, most, real, whole
from nemoport.validate.gate_result import STAMPS, GateResult

MOST_UTTERANCES, MOST_CHARACTERS, MOST_WORDS = 1_000_000, 1_000_000, 100_000
DIFFERENCES = 300  # that are kept of a variant, those with the most words that differ
DIFFERENCES_CHARACTERS = 4_000_000  # of all of them

# Transcripts may hold anything: whoever shows them escapes them.
Spoken = Annotated[str, most(MOST_CHARACTERS)]
Seconds = Annotated[float, real(0, 1e9)]
Count = Annotated[int, whole(0, 10**9)]
Counts = Annotated[list[Count], most(MOST_UTTERANCES)]
Lookahead = Annotated[int, whole(0, 10_000)] | ChunkContext | None  # as nemoport/spec.py's, with bounds
Stamps = Annotated[list[Annotated[str, most(1000)]], most(len(STAMPS), len(STAMPS))]  # the values of STAMPS


@with_config(CLOSED)
class SpokenWord(TypedDict):
    """A word of the artifact. start, end: seconds from the beginning of the utterance."""

    text: Spoken
    start: Seconds
    end: Seconds


@with_config(CLOSED)
class Recording(TypedDict):
    """An utterance with a text that differs. path, offset_s, duration_s, seconds, sha256: as of a corpus's `Utterance`."""

    id: Spoken
    language: Spoken
    text: Spoken
    path: Annotated[str, most(10_000)]
    offset_s: Seconds
    duration_s: Seconds
    seconds: Seconds
    sha256: Annotated[str, most(64)]


@with_config(CLOSED)
class Difference(TypedDict):
    """A run whose text is not NeMo's. recording: index; distance: by how many words of those that are scored."""

    recording: Count
    lookahead: Lookahead
    distance: Count
    nemo: Spoken
    own: Spoken
    words: Annotated[list[SpokenWord], most(MOST_WORDS)]


@with_config(CLOSED)
class RunErrors(TypedDict):
    """Errors of each utterance against its transcript, at one lookahead."""

    lookahead: Lookahead
    errors: Counts
    nemo_errors: Counts


@with_config(CLOSED)
class Texts(TypedDict):
    """Kept by the gate `wer`. words: of each utterance's transcript, or characters of a language without spaces; differing: how
    many runs have a text that is not NeMo's, of which `differences` has the most different ones."""

    stamps: Stamps
    rate_hz: Annotated[int, whole(1, 1_000_000)]
    languages: Annotated[list[Spoken], most(MOST_UTTERANCES)]
    words: Counts
    runs: Annotated[list[RunErrors], most(1000)]
    differing: Count
    recordings: Annotated[list[Recording], most(DIFFERENCES)]
    differences: Annotated[list[Difference], most(DIFFERENCES)]


@with_config(CLOSED)
class StreamMinute(TypedDict):
    """WER in percent, of the artifact and of NeMo, of what begins in one minute."""

    number: Count
    words: Count
    wer: Annotated[float, real(0, 1e9)]
    nemo: Annotated[float, real(0, 1e9)]


@with_config(CLOSED)
class Drift(TypedDict):
    """How far one encoder frame is from NeMo's. ratio: root mean square of the error, relative to that of NeMo's frame."""

    seconds: Seconds
    ratio: Annotated[float, real(0, 1e30)]


@with_config(CLOSED)
class StreamByTime(TypedDict):
    """Kept by the gate `longform`."""

    stamps: Stamps
    lookahead: Lookahead
    minutes: Annotated[list[StreamMinute], most(100_000)]
    drift: Annotated[list[Drift], most(1_000_000)]


KINDS: dict[str, Any] = {"wer": Texts, "longform": StreamByTime}  # gate -> what it keeps


def write_details(results: Path, judged: Sequence[GateResult], kept: dict[str, Any]) -> None:
    """Writes what a gate kept, with stamps. results: the variant's file; judged: the results of the gate. Raises OutputError."""
    text = json.dumps({**kept, "stamps": stamps(judged[0])}, ensure_ascii=False)
    # Half a surrogate pair, which a manifest may hold, has no encoding, and could not be read back.
    write_json(_path(results, judged[0].gate), json.loads(text.encode("utf-8", "replace")))


def read_details(results: Path, gate: str, judged: Sequence[GateResult]) -> Any:
    """Returns what `gate` kept when it gave these results, None if it is not there. Raises ArtifactError for a damaged file."""
    path, todo = _path(results, gate), "remove it, and the variant's results, and validate again"
    of_gate = [result for result in judged if result.gate == gate]
    if not of_gate or not path.is_file():
        return None
    kept = check(KINDS[gate], read_json(path, todo), str(path), todo)
    return kept if kept["stamps"] == stamps(of_gate[0]) else None


def stamps(result: GateResult) -> list[str]:
    """Returns what a result is valid for, in the order of STAMPS."""
    return [getattr(result, name) for name in STAMPS]


def _path(results: Path, gate: str) -> Path:
    return results.parent / "details" / f"{results.stem}.{gate}.json"
