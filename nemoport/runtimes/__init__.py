"""The runtimes that run artifacts. Each module or folder here is one and defines RUNTIME, a `nemoport.runtime.Runtime`."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from nemoport.artifact import ONNXRUNTIME, Artifact
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
    """Returns the runtime that an artifact is made for.

    Raises ArtifactError for one that does not exist, or where the variant has the name of another: a file of hashes that
    calls a variant kv-int8 does not choose another library to open its files.
    """
    recipe = artifact.manifest.recipe
    by_name = next((name for name in runtimes() if recipe.variant.startswith(f"{name}-")), ONNXRUNTIME)
    if by_name != recipe.target:
        raise ArtifactError(
            f"{artifact.folder} is of one runtime by its name and of another by its manifest.",
            expected=f"a variant for {by_name}",
            found=f"the variant {recipe.variant!r} for {recipe.target!r}",
            todo="download or build the artifact again",
        )
    return load_runtime(recipe.target)


def open_session(artifact: Artifact, provider: str = "cpu", threads: int = 0, *, built_here: bool = False) -> Session:
    """Opens an artifact in the runtime that it is made for. Arguments and errors as of `Runtime.open`; ArtifactError as
    `runtime_of`."""
    return runtime_of(artifact).open(artifact, provider, threads, built_here=built_here)


def runtime_version(name: str) -> str:
    """Returns a runtime's distribution and its version, as measured figures cite them."""
    return load_runtime(name).version
