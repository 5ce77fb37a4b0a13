"""Reference checkpoints: small transducers of the published structures, one of each kind, and the recipe that trains them.

Speech comes from espeak-ng (and, where given, from recordings in NeMo manifests), so that a clone can rebuild them.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    """Returns random_checkpoint by its former name, `random`, which scripts of others import."""
    if name == "random":
        return import_module(f"{__name__}.random_checkpoint")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
