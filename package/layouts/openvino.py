"""The layout of FluidInference's OpenVINO package of Nemotron 3.5, for eddy and other apps that load that package.

A folder a precision, each complete by itself:

<precision>/nemotron_{preprocessor,encoder,decoder,joint}.xml, .bin    graphs and weights
<precision>/nemotron_vocab.json, metadata.json                         tokens by id; sizes, languages, compile options
<precision>/manifest.json                                              the variant's
config.json, shared/                                                   nemoport's own, for every variant
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nemoport.artifact import Artifact
from nemoport.cache_layout import KV
from nemoport.config import (
    DecoderSection,
    OfflineEncoderSection,
    RuntimeConfig,
    StreamingEncoderSection,
    read_config,
)
from nemoport.export.shared import FILTERBANK, LANGUAGES, SPELLING, TOKENS
from nemoport.files import write_json
from nemoport.package.copying import copy_artifact, copy_present
from nemoport.package.examples import example_text
from nemoport.package.layout import CardFacts, Layout
from nemoport.package.usage import nemoport_commands, prompt_arguments
from nemoport.runtimes.openvino.graphs import CTC_HEAD, DECODER, ENCODER, GRAPHS, METADATA, RENAMED, STATEFUL, VOCABULARY
from nemoport.runtimes.openvino.metadata import STATE_RULE
from nemoport.spec import CTC

NAME = "openvino"
SHARED = (FILTERBANK, TOKENS, SPELLING, LANGUAGES)  # what nemoport itself reads; the graphs need none of it

FILES = {
    "<precision>/nemotron_encoder.xml`, `.bin": "encoder: graph, weights",
    "<precision>/nemotron_decoder.xml`, `nemotron_joint.xml`, `.bin": "prediction network, joint; of a CTC model `nemotron_ctc`",
    "<precision>/nemotron_preprocessor.xml`, `.bin": "front end for whole recordings: audio to log-mel",
    f"<precision>/{VOCABULARY}": "tokens by id",
    f"<precision>/{METADATA}": "sizes, shapes, rules, languages, and what OpenVINO is to compile the graphs with",
    "<precision>/manifest.json": "what the variant was made from, by which recipe and tools",
    "config.json`, `shared/": "every parameter and rule below, and what nemoport reads",
    "manifest.json": "gate results; size and sha256 of every file",
}


def artifact_folder(folder: Path, variant: str) -> Path:
    """Returns the folder of a variant in a package of this layout."""
    return folder / variant.removeprefix(f"{NAME}-")


def graphs(folder: Path, variant: str, head: str = "") -> tuple[Path, ...]:
    """Returns the graphs of a variant in a package of this layout: front end, encoder, and those of the head."""
    place = artifact_folder(folder, variant)
    return tuple(path for name in (*GRAPHS, CTC_HEAD) if (path := place / f"{name}.xml").is_file())


def config_for(config: RuntimeConfig) -> RuntimeConfig:
    """Returns the build's config.json with the tensor names of these graphs, without the section on onnxruntime."""
    encoder: StreamingEncoderSection | OfflineEncoderSection = _renamed(config["encoder"], RENAMED[ENCODER])
    if "cache_rule" in encoder:
        encoder["cache_rule"] = encoder["cache_rule"].replace("*_next", "*_out")
    renamed: RuntimeConfig = {**config, "encoder": encoder}
    if "decoder" in config:
        decoder: DecoderSection = _renamed(config["decoder"], RENAMED[DECODER])
        decoder["state_names"] = ["h_in", "c_in"]
        renamed["decoder"] = decoder
    renamed.pop("onnxruntime", None)
    if "prompt" in config:
        renamed["prompt"] = _renamed(config["prompt"], RENAMED[ENCODER])
    return renamed


def _renamed(value: Any, names: dict[str, str]) -> Any:
    """Returns JSON with tensor names replaced in keys and texts. names: old -> new.

    In a text a name is replaced where it stands in backquotes, or anywhere if it has an underscore, which plain words have not.
    """
    if isinstance(value, dict):
        return {names.get(key, key): _renamed(item, names) for key, item in value.items()}
    if not isinstance(value, str):
        return value
    for old, new in names.items():
        value = re.sub(rf"\b{old}\b" if "_" in old else f"(?<=`){old}(?=`)", new, value)
    return value


def usage(facts: CardFacts) -> str:
    """Returns the card's section on how to run the graphs."""
    name = artifact_folder(Path(), next(iter(facts.artifacts))).name
    command = f"python example.py {name} recording.wav{prompt_arguments(facts)}"
    fast = "" if KV not in facts.cache_layouts else "\nThe example is for the folders without `kv-`.\n"
    kept = f"\n`{STATEFUL}-*`: {STATE_RULE}.\n" if STATEFUL in facts.cache_layouts else ""
    return f"""With nemoport (`pip install 'nemoport[openvino]'`):

{nemoport_commands(facts, name)}

OpenVINO computes in bf16 by default, where a processor has it. The gates ran these graphs in f32, so compile them with the
options that `metadata.json` has under `runtime`.
{kept}{fast}
{_alone(facts, command)}"""


def _alone(facts: CardFacts, command: str) -> str:
    if facts.spec.head == CTC:
        return "An app runs `nemotron_ctc` on the frames `encoded` of `nemotron_encoder`, and takes the best token of each frame."
    example = example_text("openvino" if facts.spec.streaming else "openvino_offline")
    return f"""With OpenVINO alone (`pip install numpy openvino soundfile`), as `{command}`:

```python
{example}
```"""


def lay_out(build: Path, variants: Sequence[str], folder: Path) -> None:
    """Writes config.json and copies shared/ and the variants. Raises ArtifactError for a file that the build lacks."""
    write_json(folder / "config.json", config_for(read_config(build)))
    (folder / "shared").mkdir()
    copy_present(build / "shared", folder / "shared", SHARED)
    for variant in variants:
        copy_artifact(Artifact.open(build / variant), artifact_folder(folder, variant))


LAYOUT = Layout(NAME, FILES, lay_out, graphs, usage, config_for=config_for, runtime=NAME, artifact_folder=artifact_folder)
