"""LiteRT: the interpreter, on the CPU."""

from __future__ import annotations

from nemoport.artifact import Artifact
from nemoport.runtime import Runtime
from nemoport.runtimes.litert import graphs
from nemoport.runtimes.litert.offline import OfflineLitertSession
from nemoport.runtimes.litert.session import PACKAGE, LitertSession
from nemoport.session import Session


def open_artifact(artifact: Artifact, provider: str = "cpu", threads: int = 0) -> Session:
    """Opens an artifact. threads: 0 for the runtime's choice. Raises ArtifactError."""
    files = (artifact.folder / graphs.ENCODER, artifact.folder / graphs.DECODER)
    if artifact.spec.streaming:
        return LitertSession(artifact.spec, *files, threads)
    return OfflineLitertSession(artifact.spec, *files, artifact.manifest.recipe.windows_s, threads)


RUNTIME = Runtime(
    name="litert",
    title="LiteRT",
    library="litert",
    package=PACKAGE,
    open_session=open_artifact,
    expected=graphs.expected,
    found=graphs.found,
    problems=graphs.problems,
    extra="litert",
    modules=("ai_edge_litert",),
    cpu_only="leave the provider out; delegates for other processors are the app's to load",
)
