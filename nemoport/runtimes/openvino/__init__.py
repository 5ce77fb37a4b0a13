"""OpenVINO: on the devices that it finds."""

from __future__ import annotations

from collections.abc import Iterator

from nemoport.artifact import Artifact
from nemoport.files import read_json
from nemoport.interface import difference
from nemoport.runtime import Runtime
from nemoport.runtimes.openvino import graphs
from nemoport.runtimes.openvino.graphs import METADATA, VOCABULARY
from nemoport.runtimes.openvino.metadata import metadata, runtime_properties, vocabulary
from nemoport.runtimes.openvino.session import PACKAGE, OpenVinoSession
from nemoport.spec import ModelSpec
from nemoport.tokens import read_tokens
from nemoport.variant import instruction_set


def problems(artifact: Artifact, spec: ModelSpec) -> Iterator[str]:
    """Checks that this processor rounds as the gates need, that the encoder writes and reads its states, and the two files beside
    the graphs. See `Runtime.problems`."""
    recipe, unread = artifact.manifest.recipe.parameters, "build the variant again"
    if recipe["group"] and "vnni" not in (here := instruction_set()):
        yield f"activations are rounded by processors with VNNI: on this one ({here}) the gates would measure other results"
    yield from graphs.unwritten_states(artifact)
    tokens = read_tokens(artifact.shared / "tokens.txt")
    yield difference(VOCABULARY, vocabulary(tokens), read_json(artifact.folder / VOCABULARY, unread))
    config = {**artifact.config(), "spec": spec.to_dict()}
    properties = runtime_properties(recipe["group"])
    expected = metadata(config, tokens, graphs.layout_of(artifact), recipe["weights"], properties)
    found = read_json(artifact.folder / METADATA, unread)
    for key in sorted({*expected, *found}):
        yield difference(f"{METADATA}: {key}", expected.get(key), found.get(key))


RUNTIME = Runtime(
    name="openvino",
    title="OpenVINO",
    library="openvino",
    package=PACKAGE,
    open_session=OpenVinoSession.open,
    expected=graphs.expected,
    found=graphs.found,
    problems=problems,
    extra="openvino",
    modules=("openvino",),
)
