"""The language prompt: the input by which a multilingual model is given the language of a stream."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated

from pydantic import Field

from nemoport.errors import UsageError
from nemoport.schema import most, whole

AUTO = "auto"  # NeMo's name of the prompt for an unknown language, which the model then identifies by itself
MOST_LANGUAGES = 4096
LANGUAGE_NAME = r"[\w.+-]{1,64}"  # en-US, enGB, auto; it goes into cards and file names
LanguageName = Annotated[str, Field(strict=True, pattern=f"^{LANGUAGE_NAME}$")]


@dataclass(frozen=True)
class PromptSpec:
    """Languages that a model takes as its prompt: one of `slots` places of a one-hot vector, behind the encoder.

    languages: name -> slot, as in the checkpoint's `prompt_dictionary`; several names may share a slot.
    """

    slots: Annotated[int, whole(1, 65_536)]
    languages: Annotated[dict[LanguageName, Annotated[int, whole(0, 65_535)]], most(MOST_LANGUAGES)]

    def name(self, slot: int) -> str:
        """Returns the first name of a slot in the dictionary. Raises KeyError if it has none."""
        for language, number in self.languages.items():
            if number == slot:
                return language
        raise KeyError(slot)

    def slot(self, language: str | None) -> int:
        """Returns the slot of a language. Raises UsageError as `canonical_name` does."""
        return self.languages[self.canonical_name(language)]

    def canonical_name(self, language: str | None) -> str:
        """Returns a language's name as the dictionary spells it; case and `_` for `-` do not matter.

        Raises UsageError for no language, because none is a default, and for an unknown one, with the nearest names.
        """
        if not language:
            raise UsageError(
                "This model needs a language.",
                expected=f"one of the {len(self.languages)} names in its dictionary (languages.json)"
                + (f", or {AUTO} to let it find out" if AUTO in self.languages else ""),
                found="none",
                todo="name one (--language; `lang` in a manifest)",
            )
        if language in self.languages:
            return language
        plain = {name.lower(): name for name in self.languages}
        spelled = language.lower().replace("_", "-")
        if spelled in plain:
            return plain[spelled]
        near = get_close_matches(spelled, plain, 5, 0.6) or [name for name in plain if name[:2] == spelled[:2]]
        names = [name for name in self.languages if name.lower() in near]
        raise UsageError(
            f"This model has no language {language!r}.",
            expected=f"one of the {len(self.languages)} names in its dictionary (languages.json)"
            + (f", such as {', '.join(names)}" if names else ""),
            found=language,
            todo="choose one of these" + (f", or {AUTO} to let the model find out" if AUTO in self.languages else ""),
        )


def slot_of(prompt: PromptSpec | None, language: str | None) -> int | None:
    """Returns the prompt slot of a language; None for a model without a prompt. Raises UsageError."""
    if prompt:
        return prompt.slot(language)
    if language:
        raise UsageError(
            "This model has no language prompt.",
            expected="no language: it transcribes those that it was trained on",
            found=language,
            todo="leave --language out",
        )
    return None
