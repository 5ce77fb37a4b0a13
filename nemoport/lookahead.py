"""How far ahead an artifact's encoder looks, of what a caller may choose."""

from __future__ import annotations

from nemoport.artifact import Artifact
from nemoport.buffered import ChunkContext
from nemoport.config import streaming_encoder
from nemoport.errors import UsageError


def chosen_lookahead(artifact: Artifact, lookahead: int | None) -> int | None:
    """Returns the lookahead of a cache-aware encoder, or the default for None. Raises UsageError for one that this artifact's
    graphs are not made for; one that the model does not have is refused where chunks are cut."""
    if lookahead is None and artifact.spec.streaming:
        default = streaming_encoder(artifact.config())["default_lookahead"]
        served = [one for one in artifact.lookaheads if isinstance(one, int)]
        return default if default in served else served[0]
    if lookahead in artifact.spec.lookaheads and lookahead not in artifact.lookaheads:
        raise UsageError(
            f"{artifact.folder.name} has fixed shapes, for one lookahead.",
            expected=", ".join(map(str, artifact.lookaheads)),
            found=str(lookahead),
            todo="export it for this one into a build of its own (--profile, see `nemoport export --help`)",
        )
    return lookahead


def chosen_window(artifact: Artifact, chunk: int | None, right: int | None) -> ChunkContext | None:
    """Returns the window of buffered streaming, by default that of BufferedSpec.context; None where there is none and none is
    asked for. chunk, right: encoder frames. Raises UsageError for frames that the model was not trained with, and for a model or
    a runtime without windows."""
    buffered = artifact.spec.buffered
    if buffered and any(isinstance(one, ChunkContext) for one in artifact.lookaheads):
        return buffered.context(chunk, right)
    if chunk is not None or right is not None:
        raise UsageError(
            "There are no windows of buffered streaming here.",
            expected="ONNX graphs of a model that was trained for it",
            found=f"{artifact.spec.kind}, for {artifact.manifest.recipe.target}",
            todo="leave chunk and right frames out; a cache-aware model has a lookahead",
        )
    return None
