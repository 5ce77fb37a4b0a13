"""Core AI: runs the .aimodel files themselves, in the runtime that coreai-core contains, on the CPU of Linux too.

It compiles an asset when it is opened and takes no number of threads. The results of a device's own Core AI from the same file
can only be measured on a device.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from typing import Any

import numpy as np

from nemoport.apple.graphs import expected_interfaces, fixed_lookahead, read_interfaces
from nemoport.apple.session import AppleSession
from nemoport.artifact import Artifact
from nemoport.errors import ArtifactError, first_line
from nemoport.interface import Interface, Tensor, difference
from nemoport.runtime import Runtime
from nemoport.session import Session
from nemoport.spec import ModelSpec

TARGET, PACKAGE = "coreai", "coreai-core"
SUFFIX = ".aimodel"
FUNCTION = "main"


class Assets:
    """The opened assets of an artifact, and the event loop that they are called on."""

    def __init__(self, artifact: Artifact, names: list[str]):
        """Raises ArtifactError for an asset that cannot be compiled."""
        self._loop, self._open = asyncio.new_event_loop(), AsyncExitStack()
        self._functions = {name: self._loop.run_until_complete(self._load(artifact, name)) for name in names}
        weakref.finalize(self, _close, self._loop, self._open)  # each keeps a compiled copy in a temporary folder

    async def _load(self, artifact: Artifact, name: str) -> Any:  # a function whose outputs are arrays, not images
        from coreai.authoring.asset import AIModelAsset

        path = (artifact.folder / f"{name}{SUFFIX}").resolve()
        try:
            model = await self._open.enter_async_context(AIModelAsset.load(path).executable())
            return model.load_function(FUNCTION)
        except Exception as error:  # the package's own errors share no public base
            raise ArtifactError(
                f"{path} cannot be loaded.",
                expected="an asset as it was exported",
                found=f"{PACKAGE}: {first_line(error)}",
                todo="check it with `nemoport verify`, then export or download it again",
            ) from error

    def run(self, name: str, feeds: dict[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Runs a graph: input name -> array in, output name -> array out."""
        from coreai.runtime import NDArray

        inputs = {key: NDArray(array) for key, array in feeds.items()}
        return {key: array.numpy() for key, array in self._loop.run_until_complete(self._functions[name](inputs)).items()}


def open_artifact(artifact: Artifact, provider: str = "cpu", threads: int = 0) -> Session:
    """Opens an artifact. threads: not used. Raises ArtifactError."""
    graphs = read_interfaces(artifact)
    return AppleSession(artifact.spec, fixed_lookahead(artifact), graphs, Assets(artifact, list(graphs)).run)


def _close(loop: asyncio.AbstractEventLoop, opened: AsyncExitStack) -> None:
    loop.run_until_complete(opened.aclose())
    loop.close()


def expected(artifact: Artifact, spec: ModelSpec) -> dict[str, Interface]:
    """Returns the interface that each graph must have, as `Runtime.expected`."""
    return {f"{name}{SUFFIX}": graph for name, graph in expected_interfaces(artifact, spec).items()}


def found(artifact: Artifact) -> dict[str, Interface]:
    """Reads the interfaces of the assets themselves, by the names of their folders, as `Runtime.found`."""
    interfaces = {}
    for name, summary in _summaries(artifact):
        if summary is not None and FUNCTION in summary.function_names:
            inputs, outputs = (_tensors(described(FUNCTION)) for described in (summary.function_inputs, summary.function_outputs))
            interfaces[name] = Interface(inputs, outputs)
    return interfaces


def problems(artifact: Artifact, spec: ModelSpec) -> Iterator[str]:
    """Compares the functions of each asset with the one that is called. See `Runtime.problems`."""
    for name, summary in _summaries(artifact):
        yield difference(f"{name}: functions", [FUNCTION], None if summary is None else summary.function_names)


def _summaries(artifact: Artifact) -> Iterator[tuple[str, Any | None]]:
    """Yields (name of the folder, AIModelAssetSummary) of each asset; None for one without its source program."""
    from coreai.authoring.asset import AIModelAsset

    for path in sorted(artifact.folder.glob(f"*{SUFFIX}")):
        yield path.name, AIModelAsset.load(path).summary(include_statistics=False)


def _tensors(described: list[tuple[str, str]]) -> dict[str, Tensor]:
    """Returns name -> tensor. described: as the package prints it, such as ("mel", "NDArray (Float32, 1 × 56 × 128)")."""
    tensors = {}
    for name, text in described:
        kind, _, shape = text.removeprefix("NDArray (").rstrip(")").partition(", ")
        tensors[name] = Tensor(kind.lower(), tuple(int(size) for size in shape.split(" × ")))
    return tensors


RUNTIME = Runtime(
    name=TARGET,
    title="Core AI",
    library="coreai",
    package=PACKAGE,
    open_session=open_artifact,
    expected=expected,
    found=found,
    problems=problems,
    extra="coreai",
    modules=("coreai", "coreai_torch"),
    cpu_only="run the assets in an app, or time them on macOS with bench/macos/coreai_time.py",
)
