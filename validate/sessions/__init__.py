"""One file per runtime that an artifact can be run by; its name is the artifact's target.

Each has `open_artifact(artifact, provider, threads) -> nemoport.decode.Session` and PACKAGE, the distribution that runs it.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from types import ModuleType

from nemoport.artifact import Artifact
from nemoport.decode import Session


def runtime(target: str) -> ModuleType:
    return import_module(f"{__name__}.{target}")


def open_session(artifact: Artifact, provider: str = "cpu", threads: int = 0) -> Session:
    """provider: as the runtime names its devices; threads: 0 for its own choice. Raises UsageError for a provider that is
    not there or a runtime that is not installed, ArtifactError for graphs that it cannot load."""
    return runtime(artifact.manifest.recipe.target).open_artifact(artifact, provider, threads)


def running(target: str) -> str:
    """The runtime and its version, as figures name it."""
    package = runtime(target).PACKAGE
    return f"{package} {version(package)}"
