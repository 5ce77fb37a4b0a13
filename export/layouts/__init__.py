"""One module per consumer, which arranges the variants of a build as that consumer loads them.

A layout is a module here; its file name, with - for _, is the name it is chosen by. It has

- `lay_out(build: Path, variants: Sequence[str], folder: Path, shard_bytes: int | None) -> None`, which fills the empty
  `folder`; `nemoport.export.package` adds card, licence and manifest;
- `graphs(folder: Path, variant: str) -> tuple[Path, ...]`: encoder and decoder of a variant in such a package, or encoder,
  predictor and joiner;
- `config_for(config: dict) -> dict`: the package's config.json from the build's;
- CONTRACTS, where it does not take both: those of the variants that are packed where none are named;
- TARGET, where it is not onnxruntime: the runtime whose variants it takes; FORMAT and LIBRARY: what the card calls its graphs,
  and what the Hub calls that;
- `artifact_folder(folder: Path, variant: str) -> Path`, where nemoport itself can open the variants of a package;
- for the card, FILES (path -> what it holds) and `usage(facts: CardFacts) -> str`; where the graphs are not like ONNX's,
  `intro(facts)`, how they stream, and `rules(facts)`, the section on how to run them.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from nemoport.errors import UsageError


def layouts() -> list[str]:
    return sorted(m.name.replace("_", "-") for m in pkgutil.iter_modules(__path__) if not m.name.endswith("_example"))


def load_layout(name: str):
    """Raises UsageError for one that does not exist."""
    if name not in layouts():
        raise UsageError(f"Unknown layout {name!r}.", expected=f"one of {', '.join(layouts())}", found=name)
    return import_module(f"{__name__}.{name.replace('-', '_')}")
