"""Package layouts, one module a consumer: each defines LAYOUT, a `nemoport.package.layout.Layout`.

A module's file name, with - for _, is the name by which its layout is chosen.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from nemoport.errors import UsageError
from nemoport.package.layout import Layout


def layouts() -> list[str]:
    """Returns the names of all layouts, sorted."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def load_layout(name: str) -> Layout:
    """Returns a layout by its name. Raises UsageError for one that does not exist."""
    if name not in layouts():
        raise UsageError(f"Unknown layout {name!r}.", expected=f"one of {', '.join(layouts())}", found=name)
    return import_module(f"{__name__}.{name.replace('-', '_')}").LAYOUT
