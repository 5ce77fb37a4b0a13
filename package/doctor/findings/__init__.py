"""The doctor's checks, one file each: a module's CHECK is one, and its name with - for _ is the check's."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module

from nemoport.package.doctor.check import Check


@cache
def checks() -> dict[str, Check]:
    """Returns all checks by their names, sorted."""
    modules = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name.replace("_", "-"): import_module(f"{__name__}.{name}").CHECK for name in modules}
