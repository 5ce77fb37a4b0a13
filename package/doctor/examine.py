"""Runs every check over a folder or a repository of the Hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nemoport.errors import NemoportError, first_line
from nemoport.foreign.folder import ForeignModel, read_folder
from nemoport.hub_id import split_hub_id
from nemoport.package.doctor.check import ERROR, NOTE, WARNING, Finding, Found, Model, Report
from nemoport.package.doctor.consumers import consumer as consumer_of
from nemoport.package.doctor.examined import Examined
from nemoport.package.doctor.findings import checks
from nemoport.package.doctor.hub import downloaded
from nemoport.progress import Progress, silent, step
from nemoport.text import clipped

_ORDER = (ERROR, WARNING, NOTE)
_LONGEST = 1000


def examine(place: Path | str, consumer: str = "", *, static: bool = False, progress: Progress = silent) -> Report:
    """Examines a folder, or organisation/name[@revision] of the Hub, which is downloaded.

    consumer: a name of CONSUMERS, to hold the package against it; static: graphs are not run. Raises ArtifactError for what has
    no graph, UsageError for an unknown consumer.
    """
    known = consumer_of(consumer) if consumer else None
    repository, folder = "", Path(place)
    if not folder.exists() and split_hub_id(str(place)):
        repository, folder = str(place), downloaded(str(place), progress)
    examined = Examined(read_folder(folder, repository), known, static)
    models = examined.folder.models
    found = [one for name, check in checks().items() for one in _named(name, str(place), check.in_folder(examined))]
    kinds = []
    for model in models:  # all checks of one, then of the next, so that the graphs of one are open at a time
        with step(f"doctor: {model.name}", progress):
            for name, check in checks().items():
                found += _named(name, model.name, check.in_model(examined, model))
            kinds.append(_model(model, examined))
    findings = sorted(dict.fromkeys(found), key=lambda one: (_ORDER.index(one[1].severity), one[0], one[1].file))
    return Report(str(place), consumer, tuple(kinds), tuple(_finding(name, one) for name, one in findings))


def _named(name: str, file: str, found: Iterator[Found]) -> list[tuple[str, Found]]:
    """What a check finds, by its name. A graph that ONNX does not allow can fail any of them: that is a finding too."""
    try:
        return [(name, one) for one in found]
    except NemoportError as error:
        reason = error.found or error.what
    except Exception as error:  # of numpy, onnx or this code, on what a stranger wrote
        reason = f"{type(error).__name__}: {first_line(error)}"
    return [("unreadable", Found(file, f"a graph that the check {name} can read", reason))]


def _model(model: ForeignModel, examined: Examined) -> Model:
    opened = examined.opened(model)
    spec = opened.spec or examined.spec(model)
    parts = {part.ports.role: clipped(part.name) for part in model.parts}
    return Model(clipped(model.name), spec.kind if spec else "", parts, ran=opened.encoder is not None)


def _finding(name: str, found: Found) -> Finding:
    check = checks()[name]
    expected, shown = (clipped(text, _LONGEST) for text in (found.expected, found.found))
    texts = (check.why, check.todo, check.reports)
    return Finding(name, found.severity, clipped(found.file, _LONGEST), check.title, expected, shown, *texts)
