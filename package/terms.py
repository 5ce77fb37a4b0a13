"""Terms under which a package may be published: the licence of its weights, their author, and the notice of both.

The licence is never guessed. It is what the caller states, or, for a base model in BASE_MODELS, what its publisher
states. Where neither states one, there is no package.
"""

from __future__ import annotations

from dataclasses import dataclass

from nemoport.config import CheckpointSection
from nemoport.errors import UsageError
from nemoport.hub_id import split_hub_id


@dataclass(frozen=True)
class Licence:
    """A licence of weights. url: of its text; spdx: its SPDX id, "" where none is known."""

    name: str
    url: str
    attribution: bool  # the licence asks to name the author
    spdx: str = ""


@dataclass(frozen=True)
class BaseModel:
    """Licence, author and language that the publisher of a model on the Hub states."""

    licence: str
    holder: str
    language: str


LICENCES = {
    "apache-2.0": Licence("Apache License 2.0", "https://www.apache.org/licenses/LICENSE-2.0", False, "Apache-2.0"),
    "cc-by-4.0": Licence(
        "Creative Commons Attribution 4.0 International", "https://creativecommons.org/licenses/by/4.0/", True, "CC-BY-4.0"
    ),
}
# As cards of packages made from these models state. A licence that the caller states replaces it: a revision may change it.
BASE_MODELS = {"nvidia/nemotron-speech-streaming-en-0.6b": BaseModel("cc-by-4.0", "NVIDIA", "en")}


@dataclass(frozen=True)
class Terms:
    """Licence, origin and author of a package's weights."""

    licence_id: str  # the Hub's, such as apache-2.0
    licence: Licence
    base_model: str  # Hub id, "" where the checkpoint has none
    revision: str  # of the base model, "" where it is not known
    holder: str  # "" where nobody has to be named
    language: str  # "" where it is not known

    @property
    def base(self) -> str:
        """Hub id of the base model, with @revision where it is known; "" where there is none."""
        return f"{self.base_model}@{self.revision}" if self.revision else self.base_model

    def notice(self, checkpoint: CheckpointSection, graph_format: str, variants: list[str]) -> str:
        """Returns LICENSE of a package: licence, author, origin and changes, as CC BY 4.0 section 3(a)(1) requires.

        graph_format: of the package's graphs, such as ONNX. variants: their names.
        """
        author = f"Author of the weights: {self.holder}\n" if self.holder else ""
        origin = f"Base model: {self.base_model}, https://huggingface.co/{self.base_model}\n" if self.base_model else ""
        revision = f"Revision: {self.revision}\n" if self.revision else ""
        folder = "a folder of Hugging Face transformers, the `sha256sum` lines of whose files have the"
        what = folder if "format" in checkpoint else "a .nemo file with"
        return (
            f"The weights in this package are under this licence: {self.licence.name}\n"
            f"Licence text: {self.licence.url}\n\n"
            f"{author}{origin}{revision}Checkpoint: {what} sha256 {checkpoint['sha256']}\n\n"
            f"Changes: exported to {graph_format} and converted to these variants: {', '.join(variants)}.\n"
        )


def resolve_terms(
    recorded_base: str,
    *,
    base_model: str | None = None,
    licence: str | None = None,
    licence_url: str | None = None,
    holder: str | None = None,
    language: str | None = None,
) -> Terms:
    """Returns the terms of a package, of what the caller states and what is known of the base model.

    recorded_base: Hub id by which the checkpoint was exported, or "". base_model: Hub id, with or without @revision; it may
    add the revision, and name the model where none was recorded. licence: an id in LICENCES, or another one with the address
    of its text, licence_url. holder: the weights' author. language: as the Hub names it. Raises UsageError where the licence,
    its text or the author is missing, or the base model is another one.
    """
    named, recorded = (base_model or recorded_base).partition("@"), recorded_base.partition("@")
    if recorded_base and named[0] != recorded[0]:
        raise UsageError(
            "The base model is not the one that was exported.",
            expected=recorded_base,
            found=base_model or "",
            todo="leave --base-model out, or export the checkpoint that you mean",
        )
    if named[0] and split_hub_id(named[0]) is None:
        raise UsageError(
            "The base model is not named as the Hub names it.",
            expected="organisation/name, with or without @revision",
            found=named[0],
            todo="correct --base-model, or leave it out",
        )
    known = BASE_MODELS.get(named[0])
    licence_id = licence or (known.licence if known else "")
    if not licence_id:
        raise UsageError(
            "The licence of the weights is not known, and it is not guessed.",
            expected=f"--license with one of {', '.join(LICENCES)}, or another id with its --license-url",
            found=f"no --license, and {f'the base model {named[0]}' if named[0] else 'no base model'}",
            todo="look it up where the checkpoint comes from",
        )
    terms = LICENCES.get(licence_id)
    if terms is None and licence_url:
        terms = Licence(licence_id, licence_url, attribution=False)
    if terms is None:
        raise UsageError(
            f"The text of the licence {licence_id} is not known.",
            expected=f"one of {', '.join(LICENCES)}, or --license-url",
            found="no --license-url",
            todo="name the address of the licence's text",
        )
    author = holder or (known.holder if known else "")
    if terms.attribution and not (author or named[0]):
        raise UsageError(
            f"{licence_id} asks to name the author of the weights.",
            expected="--license-holder, or --base-model",
            found="neither",
            todo="name one",
        )
    return Terms(
        licence_id=licence_id,
        licence=terms,
        base_model=named[0],
        revision=named[2] or recorded[2],
        holder=author,
        language=language or (known.language if known else ""),
    )
