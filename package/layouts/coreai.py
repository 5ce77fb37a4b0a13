"""The layout for Core AI: a folder a variant with the .aimodel of each graph, beside shared/.

config.json                          the model's parameters
shared/                              filterbank, tokens, tokenizer, front end
<variant>/<graph>.aimodel/           each is a folder: program, its hash, metadata
<variant>/metadata.json              names, shapes, rules
"""

from __future__ import annotations

from pathlib import Path

from nemoport.apple.graphs import JOINT, PRE, PRE_FIRST, PREDICT, conformer_parts
from nemoport.export.targets.coreai import HALVES
from nemoport.package.fixed_shapes import fixed_shapes_layout
from nemoport.package.layout import CardFacts
from nemoport.package.usage import nemoport_commands
from nemoport.runtimes.coreai import SUFFIX, TARGET

LIMITS = (
    "The assets were run by the package coreai-core on the CPU of the machine named above; by a device's own Core AI, its GPU "
    "and its Neural Engine: not measured.",
)
FILES = {
    f"{PRE_FIRST}{SUFFIX}`, `{PRE}{SUFFIX}": "subsampling, of the first and of later chunks",
    "`, `".join(f"{part}{SUFFIX}" for part in conformer_parts(HALVES)): "the encoder's layers in two halves; behind the "
    "second the joint's projection",
    f"{PREDICT}{SUFFIX}`, `{JOINT}{SUFFIX}": "prediction network; joint",
}


def graphs(folder: Path, variant: str, head: str = "") -> tuple[Path, ...]:
    """Returns the graphs of a variant in a package of this layout."""
    names = (PRE_FIRST, PRE, *conformer_parts(HALVES), PREDICT, JOINT)
    return tuple(folder / variant / f"{name}{SUFFIX}" for name in names)


def usage(facts: CardFacts) -> str:
    """Returns the card's section on how to run the graphs."""
    commands = nemoport_commands(facts, next(iter(facts.artifacts)))
    return f"""With nemoport and the package's own runtime (`pip install 'nemoport[coreai]'`):

{commands}

In an app: load each `.aimodel` with Core AI, call its function `main` by the names below, carry the caches along."""


LAYOUT = fixed_shapes_layout(TARGET, FILES, graphs, usage, LIMITS)
