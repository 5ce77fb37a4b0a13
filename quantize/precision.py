"""The description of a precision: how a variant is made from the fp32 graphs, or from another variant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemoport.artifact import Artifact
from nemoport.errors import CorpusError
from nemoport.progress import Progress
from nemoport.quantize.student import Student
from nemoport.resources import Needs
from nemoport.speech.corpus import Corpus
from nemoport.variant import FP32

Convert = Callable[[Artifact, Path, Any, Corpus | None, Progress], None]
ConvertStudent = Callable[[Artifact, Path, Student, Progress], None]


def _fp32(parameters: Any) -> str:
    return FP32


@dataclass(frozen=True)
class Precision:
    """One precision. A module of this folder that defines PRECISION makes one, and its file name is the variant's name.

    parameters: a frozen dataclass, which is the recipe; convert(parent, folder, parameters, calibration, progress): writes the
    four files of the variant into `folder`; needs_calibration: whether convert is given audio; made_of(parameters): the variant
    that it is made from; needs: memory and disk that convert takes; comparisons: variant name -> other parameters, built to be
    measured beside the variant and never packaged; convert_student(parent, folder, student, progress): as convert, of what
    `nemoport distill` has trained, where the precision can be made so."""

    parameters: Any
    convert: Convert
    needs_calibration: bool
    made_of: Callable[[Any], str] = _fp32
    needs: Needs = Needs()
    comparisons: Mapping[str, Any] = field(default_factory=dict)
    convert_student: ConvertStudent | None = None


def require_corpus(calibration: Corpus | None) -> Corpus:
    """The calibration audio of a precision that needs it. Raises CorpusError if none was given."""
    if calibration is None:
        raise CorpusError(
            "This precision runs the model on calibration audio.",
            expected="a corpus of speech that is not in the evaluation set",
            found="none",
            todo="give one with --calibration, and set needs_calibration in the module's PRECISION",
        )
    return calibration
