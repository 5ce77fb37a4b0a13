"""The runtimes that run artifacts. Each module or folder here is one and defines RUNTIME, a `nemoport.runtime.Runtime`."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from nemoport.artifact import Artifact
from nemoport.errors import ArtifactError
from nemoport.runtime import Runtime
from nemoport.session import Session


def runtimes() -> list[str]:
    """Lists the names of the runtimes that exist, installed or not."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load_runtime(name: str) -> Runtime:
    """Returns the runtime of a name. Raises ArtifactError for a name that no runtime has."""
    if name not in runtimes():
        raise ArtifactError(
            f"There is no runtime {name!r}.",
            expected=f"one of {', '.join(runtimes())}",
            found=repr(name),
            todo="build or download the artifact again, or install a newer nemoport",
        )
    return import_module(f"{__name__}.{name}").RUNTIME


def runtime_of(artifact: Artifact) -> Runtime:
    """Returns the runtime that an artifact is made for. Raises ArtifactError for one that does not exist."""
    return load_runtime(artifact.manifest.recipe.target)


def open_session(artifact: Artifact, provider: str = "cpu", threads: int = 0) -> Session:
    """Opens an artifact in the runtime that it is made for. Raises as `Runtime.open`."""
    return runtime_of(artifact).open(artifact, provider, threads)


def runtime_version(name: str) -> str:
    """Returns a runtime's distribution and its version, as measured figures cite them."""
    return load_runtime(name).version
