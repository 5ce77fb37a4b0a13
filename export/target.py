"""Target: a format that checkpoints are converted to, for a runtime; and Source: what a variant is converted from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from nemoport.artifact import Artifact, Recipe
from nemoport.errors import UsageError
from nemoport.export.build import export_checkpoint
from nemoport.export.checkpoint import Checkpoint
from nemoport.progress import Progress
from nemoport.resources import Needs
from nemoport.spec import CTC, ModelSpec
from nemoport.speech.corpus import Corpus


@dataclass(frozen=True)
class Source:
    """What a variant is converted from. corpus: the calibration audio; None for precisions that need none."""

    checkpoint: Checkpoint
    build: Path
    corpus: Corpus | None
    progress: Progress

    def onnx(self, layout: str) -> Artifact:
        """The fp32 ONNX graphs in a cache layout; exports them if `build` does not hold them. Raises as `export_checkpoint`."""
        return export_checkpoint(self.checkpoint, self.build, layout, self.progress)


MOST_WINDOWS, LONGEST_WINDOW_S = 8, 120  # at 120 s the scores of a layer with 8 heads are 72 MB, and the positions' as much
NO_CACHES = "it keeps no caches"  # why an offline model lacks a precision
Convert = Callable[[Source, Path, Any, Progress], dict[str, str]]


def _unresolved(parameters: Any, spec: ModelSpec) -> Any:
    return parameters


@dataclass(frozen=True)
class Target:
    """A format that checkpoints are converted to. Its variants are named NAME-PRECISION; the runtime of the same name runs them.

    precisions: name -> parameters, a frozen dataclass, which together with the target's name are the recipe.
    convert(source, folder, parameters, progress): fills the empty `folder` and returns role -> path within it, of every file.
    Raises UsageError for a checkpoint that the target cannot be made of, naming those that it can.
    extra: of pyproject.toml, which installs the packages of the converter; modules: their import names.
    resolve(parameters, spec): the parameters completed with what depends on the checkpoint, such as the one lookahead of graphs
    of fixed shapes; the artifact is run and validated at a parameter `lookahead`. Raises UsageError.
    calibrated: names of the precisions that need calibration audio; streaming_only: of those that only a cache-aware model has,
    and why an offline one has them not; no_streaming_ctc: why a cache-aware CTC model has none, "" where it has; buffered:
    whether a model of buffered streaming has any. windows_s: seconds of the windows of an offline model, where the graphs have
    fixed shapes: the parameters then have a field of this name, and the recipe of an offline model has it. needs: memory and disk
    that `convert` takes at the least, beside the ONNX graphs that it is made from.
    """

    name: str
    precisions: Mapping[str, Any]
    convert: Convert
    extra: str = "export"
    modules: tuple[str, ...] = ()
    resolve: Callable[[Any, ModelSpec], Any] = _unresolved
    calibrated: frozenset[str] = frozenset()
    streaming_only: Mapping[str, str] = field(default_factory=dict)
    no_streaming_ctc: str = ""
    buffered: bool = False
    windows_s: tuple[int, ...] = ()
    needs: Needs = Needs()

    def reason_against(self, precision: str, *, streaming: bool, buffered: bool, head: str) -> str:
        """Returns why models of a kind do not have a precision, "" where they do. streaming, buffered, head: as of
        `nemoport.export.kinds.Kind`."""
        if buffered and not self.buffered:
            return "the window of its attention is an input that the ONNX graphs alone have"
        if not streaming:
            return self.streaming_only.get(precision, "")
        return self.no_streaming_ctc if head == CTC else ""

    def precisions_of(self, spec: ModelSpec) -> list[str]:
        """Names of the precisions that a model can have."""
        return [name for name in self.precisions if not self._reason_against(name, spec)]

    def _reason_against(self, precision: str, spec: ModelSpec) -> str:
        streaming, buffered = spec.streaming is not None, spec.buffered is not None
        return self.reason_against(precision, streaming=streaming, buffered=buffered, head=spec.head)

    def check_precision(self, name: str, spec: ModelSpec) -> None:
        """Raises UsageError for a precision that the target, or this model in it, does not have."""
        found = self.precisions_of(spec)
        if name in found:
            return
        if name in self.precisions:
            raise UsageError(
                f"{self.name}-{name} cannot be made of this model.",
                expected=f"one of {', '.join(found)}" if found else f"a model of another kind than {spec.kind}",
                found=f"{spec.kind}: {self._reason_against(name, spec)}",
                todo="choose one of these" if found else "export it to onnx, which takes every kind",
            )
        raise UsageError(
            f"The target {self.name} has no precision {name!r}.",
            expected=f"one of {', '.join(found)}",
            found=name,
            todo="choose one of these",
        )

    def recipe(self, precision: str, parameters: Any, spec: ModelSpec) -> Recipe:
        """The recipe of a precision. parameters: resolved. A recipe's digest identifies builds, so that its form must not
        change."""
        values = asdict(parameters)
        windows = {"windows_s": list(found)} if (found := values.pop("windows_s", ())) else {}
        return Recipe(f"{self.name}-{precision}", None, {"target": self.name, **values, **windows})

    def windowed(self, parameters: Any, spec: ModelSpec, windows_s: Sequence[int] = ()) -> Any:
        """Returns the parameters with the windows of an offline model, by default the target's. Raises UsageError for windows
        that cannot be made."""
        if spec.streaming or not self.windows_s:
            if windows_s:
                raise UsageError(
                    f"The target {self.name} makes no windows of {spec.kind}.",
                    expected="no --windows: they are of offline models, in graphs of fixed shapes",
                    found=", ".join(map(str, windows_s)),
                    todo="leave it out",
                )
            return parameters
        chosen = tuple(sorted(set(windows_s or self.windows_s)))
        if len(chosen) > MOST_WINDOWS or not all(0 < seconds <= LONGEST_WINDOW_S for seconds in chosen):
            raise UsageError(
                "These windows cannot be made.",
                expected=f"at most {MOST_WINDOWS}, each of 1 to {LONGEST_WINDOW_S} s",
                found=", ".join(map(str, chosen)),
                todo="choose fewer or shorter ones; longer recordings are transcribed in windows that overlap",
            )
        return replace(parameters, windows_s=chosen)
