"""What a precision is: how a variant is made of the fp32 graphs, or of another variant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemoport.artifact import Artifact
from nemoport.progress import Progress
from nemoport.speech.corpus import Corpus
from nemoport.variant import FP32

Convert = Callable[[Artifact, Path, Any, Corpus | None, Progress], None]


def _fp32(parameters: Any) -> str:
    return FP32


@dataclass(frozen=True)
class Precision:
    """A module here that defines PRECISION is one, and the module's file name is its variant's name.

    parameters: a frozen dataclass, which is the recipe; convert(parent, folder, parameters, calibration, progress): writes the
    four files of the variant into `folder`; needs_calibration: whether convert is given audio; made_of(parameters): the variant
    that it is made of; comparisons: variant name -> other parameters, built to be measured beside the variant and never
    packaged."""

    parameters: Any
    convert: Convert
    needs_calibration: bool
    made_of: Callable[[Any], str] = _fp32
    comparisons: Mapping[str, Any] = field(default_factory=dict)
