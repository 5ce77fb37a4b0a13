"""Parts of the card's section on use that several layouts share."""

from __future__ import annotations

from nemoport.config import streaming_encoder
from nemoport.package.layout import CardFacts


def nemoport_commands(facts: CardFacts, variant: str) -> str:
    """Returns the Markdown block of shell commands that verify the package and transcribe with one variant.

    variant: name of its folder. A model with a prompt needs a language; `auto` lets the model detect it.
    """
    language = " --language auto" if facts.spec.prompt else ""
    return f"""```sh
nemoport verify .
nemoport transcribe {variant}{language} recording.wav
```"""


def prompt_arguments(facts: CardFacts) -> str:
    """Returns the last arguments of an example script, lookahead and language: " 6 auto"; "" for a model without a prompt."""
    return f" {streaming_encoder(facts.config)['default_lookahead']} auto" if facts.spec.prompt else ""
