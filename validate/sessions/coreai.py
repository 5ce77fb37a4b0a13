"""Runs the .aimodel files themselves, in the runtime that coreai-core carries: on Linux too, on the CPU.

It compiles an asset when it is opened and takes no number of threads. What a device's own Core AI computes from the same file
is for a device to tell.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Mapping
from contextlib import AsyncExitStack

import numpy as np

from nemoport.artifact import Artifact
from nemoport.errors import ArtifactError, UsageError
from nemoport.export.static_export import graphs_of
from nemoport.export.targets.coreai import FUNCTION, SUFFIX, TARGET
from nemoport.validate.sessions.static import StaticSession

PACKAGE = "coreai-core"


class Assets:
    """The opened assets of an artifact, and the event loop that they are called on."""

    def __init__(self, artifact: Artifact, names: list[str]):
        """Raises ArtifactError for an asset that cannot be compiled."""
        self._loop, self._open = asyncio.new_event_loop(), AsyncExitStack()
        self._functions = {name: self._loop.run_until_complete(self._load(artifact, name)) for name in names}
        weakref.finalize(self, _close, self._loop, self._open)  # each keeps a compiled copy in a temporary folder

    async def _load(self, artifact: Artifact, name: str):
        from coreai.authoring.asset import AIModelAsset

        path = (artifact.folder / f"{name}{SUFFIX}").resolve()
        try:
            model = await self._open.enter_async_context(AIModelAsset.load(path).executable())
            return model.load_function(FUNCTION)
        except Exception as error:  # the package's own errors share no public base
            raise ArtifactError(
                f"{path} cannot be loaded.",
                expected="an asset as it was exported",
                found=f"{PACKAGE}: {(str(error).splitlines() or [type(error).__name__])[0]}",
                todo="check it with `nemoport verify`, then export or download it again",
            ) from error

    def run(self, name: str, feeds: dict[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        from coreai.runtime import NDArray

        inputs = {key: NDArray(array) for key, array in feeds.items()}
        return {key: array.numpy() for key, array in self._loop.run_until_complete(self._functions[name](inputs)).items()}


def open_artifact(artifact: Artifact, provider: str = "cpu", threads: int = 0) -> StaticSession:
    from nemoport.export.targets import load_target

    load_target(TARGET)  # tells which package is absent
    if provider != "cpu":
        raise UsageError(
            f"The package's runtime has no {provider!r}.",
            expected="cpu",
            found=provider,
            todo="run the assets in an app, or time them on macOS with bench/macos/coreai_time.py",
        )
    graphs, (lookahead,) = graphs_of(artifact), artifact.lookaheads
    return StaticSession(artifact.spec, lookahead, graphs, Assets(artifact, list(graphs)).run)


def _close(loop: asyncio.AbstractEventLoop, opened: AsyncExitStack) -> None:
    loop.run_until_complete(opened.aclose())
    loop.close()
