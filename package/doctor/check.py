"""A check of the doctor, and what it finds, as types."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from nemoport.foreign.folder import ForeignModel
from nemoport.package.doctor.examined import Examined
from nemoport.schema import CLOSED, Name, Text, most

ERROR, WARNING, NOTE = "error", "warning", "note"
Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Found:
    """One thing that a check found. file: the graph or file, by its path in the folder; expected, found: what should be there,
    and what is. severity: words are lost or it does not run; words may be lost; or what the named consumer does by itself."""

    file: str
    expected: str
    found: str
    severity: Severity = ERROR


def _nothing(*_: object) -> Iterator[Found]:
    return iter(())


@dataclass(frozen=True)
class Check:
    """A check. title: what is wrong, in a few words; why: how words are lost by it; todo: what mends it; reports: addresses of
    public reports; in_folder: yields what it finds in the whole folder; in_model: in one model; runs: whether it also runs the
    graphs on noise, which --static leaves out."""

    title: str
    why: str
    todo: str
    reports: tuple[str, ...] = ()
    in_folder: Callable[[Examined], Iterator[Found]] = _nothing
    in_model: Callable[[Examined, ForeignModel], Iterator[Found]] = _nothing
    runs: bool = False


@dataclass(frozen=True)
class Finding:
    """A line of the doctor's report: of one check, on one file."""

    __pydantic_config__ = CLOSED

    check: Name
    severity: Severity
    file: Text
    title: Text
    expected: Text
    found: Text
    why: Text
    todo: Text
    reports: tuple[Text, ...]


@dataclass(frozen=True)
class Model:
    """A model that was examined: the graphs that belong together. graph: the encoder's path; kind: such as streaming-rnnt, ""
    where the graphs do not show it; parts: part -> path; ran: whether it was run, on noise."""

    __pydantic_config__ = CLOSED

    graph: Text
    kind: Text
    parts: dict[Text, Text]
    ran: bool


@dataclass(frozen=True)
class Report:
    """What `nemoport doctor --json` prints. consumer: the one that was named, or ""."""

    __pydantic_config__ = CLOSED

    path: Text
    consumer: Text
    models: Annotated[tuple[Model, ...], most(1000)]
    findings: Annotated[tuple[Finding, ...], most(100_000)]
    schema: Literal[1] = 1

    @property
    def exit_code(self) -> int:
        """0: nothing, or notes alone; 1: a warning or an error."""
        return int(any(one.severity != NOTE for one in self.findings))
