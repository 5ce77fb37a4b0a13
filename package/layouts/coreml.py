"""The layout for Core ML: a folder a variant with the .mlpackage of each graph and the program behind it, beside shared/.

config.json                          the model's parameters
shared/                              filterbank, tokens, tokenizer, front end
<variant>/<Graph>.mlpackage/         each is a folder: model, weights, Manifest.json
<variant>/<Graph>.pt2                the torch program that was converted, and that the gates ran
<variant>/metadata.json              names, shapes, rules
"""

from __future__ import annotations

from pathlib import Path

from nemoport.apple.graphs import CONFORMER, JOINT, PRE, PRE_FIRST, PREDICT
from nemoport.package.fixed_shapes import fixed_shapes_layout
from nemoport.package.layout import CardFacts
from nemoport.runtimes.coreml import NAMES, PACKAGE_SUFFIX, PROGRAM_SUFFIX, TARGET

LIMITS = (
    "What the gates ran is the torch program beside each package, in float32. The packages themselves, and what fp16 and "
    "compressed weights cost in them: not measured.",
)
FILES = {
    f"{NAMES[PRE_FIRST]}{PACKAGE_SUFFIX}`, `{NAMES[PRE]}{PACKAGE_SUFFIX}": "subsampling, of the first and of later chunks",
    f"{NAMES[CONFORMER]}{PACKAGE_SUFFIX}": "the encoder's layers, and the joint's projection of the frames",
    f"Encoder_<seconds>s{PACKAGE_SUFFIX}": "of an offline model: the encoder of a window, and the projection or the CTC scores",
    f"{NAMES[PREDICT]}{PACKAGE_SUFFIX}`, `{NAMES[JOINT]}{PACKAGE_SUFFIX}": "prediction network; joint",
    f"<Graph>{PROGRAM_SUFFIX}": "the torch program that each package was made from",
}


def graphs(folder: Path, variant: str, head: str = "") -> tuple[Path, ...]:
    """Returns the graphs of a variant in a package of this layout."""
    return tuple(sorted((folder / variant).glob(f"*{PACKAGE_SUFFIX}")))


def usage(facts: CardFacts) -> str:
    """Returns the card's section on how to run the graphs."""
    return """In an app: load each `.mlpackage`, call it by the names below, carry the caches along where there are any. The
files are checked by

```sh
nemoport verify .
```

nemoport does not run the torch programs beside the packages: such a file can hold code. `nemoport validate` ran them where they
were built."""


LAYOUT = fixed_shapes_layout(TARGET, FILES, graphs, usage, LIMITS)
