"""One module per consumer, which arranges the variants of a build as that consumer loads them.

A layout is a module here with `lay_out(build: Path, variants: Sequence[str], folder: Path) -> None`; its file name is
the name it is chosen by. It fills the empty `folder`; `nemoport.export.package` adds card, licence and manifest.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from nemoport.errors import UsageError


def layouts() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.endswith("_example"))


def load_layout(name: str):
    """Raises UsageError for one that does not exist."""
    if name not in layouts():
        raise UsageError(f"Unknown layout {name!r}.", expected=f"one of {', '.join(layouts())}", found=name)
    return import_module(f"{__name__}.{name}")
