"""The layout of card 002, for eddy and whatever else loads its packages: a folder a precision, each complete by itself.

<precision>/nemotron_{preprocessor,encoder,decoder,joint}.xml, .bin    graphs and weights
<precision>/nemotron_vocab.json, metadata.json                         tokens by id; sizes, languages, what to compile with
<precision>/manifest.json                                              the variant's
config.json, shared/                                                   nemoport's own, for every variant
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from nemoport.artifact import Artifact
from nemoport.cache_layout import KV
from nemoport.export.shared import FILTERBANK, LANGUAGES, TOKENS
from nemoport.files import read_json, write_json
from nemoport.package.copying import copy_file
from nemoport.package.examples import example_text
from nemoport.package.layout import CardFacts, Layout
from nemoport.runtimes.openvino.graphs import DECODER, ENCODER, GRAPHS, METADATA, RENAMED, STATEFUL, VOCABULARY
from nemoport.runtimes.openvino.metadata import STATE_RULE

NAME = "openvino"
SHARED = (FILTERBANK, TOKENS)  # what nemoport's own runtime reads; the graphs need none of it

FILES = {
    "<precision>/nemotron_encoder.xml`, `.bin": "encoder: graph, weights",
    "<precision>/nemotron_decoder.xml`, `nemotron_joint.xml`, `.bin": "prediction network, joint",
    "<precision>/nemotron_preprocessor.xml`, `.bin": "front end for whole recordings: audio to log-mel",
    f"<precision>/{VOCABULARY}": "tokens by id",
    f"<precision>/{METADATA}": "sizes, cache shapes, languages, and what OpenVINO is to compile the graphs with",
    "<precision>/manifest.json": "what the variant was made from, by which recipe and tools",
    "config.json`, `shared/": "every parameter and rule below, and what nemoport reads",
    "manifest.json": "gate results; size and sha256 of every file",
}


def artifact_folder(folder: Path, variant: str) -> Path:
    """Where a variant stands in a package of this layout."""
    return folder / variant.removeprefix(f"{NAME}-")


def graphs(folder: Path, variant: str) -> tuple[Path, ...]:
    return tuple(artifact_folder(folder, variant) / f"{name}.xml" for name in GRAPHS)


def config_for(config: dict) -> dict:
    """The build's, by the names of these graphs."""
    kept = {key: value for key, value in config.items() if key != "onnxruntime"}
    encoder, decoder = (_renamed(config[part], RENAMED[name]) for part, name in (("encoder", ENCODER), ("decoder", DECODER)))
    encoder["cache_rule"] = encoder["cache_rule"].replace("*_next", "*_out")
    prompt = {"prompt": _renamed(config["prompt"], RENAMED[ENCODER])} if "prompt" in config else {}
    return {**kept, "encoder": encoder, "decoder": {**decoder, "state_names": ["h_in", "c_in"]}, **prompt}


def _renamed(value, names: dict[str, str]):
    """Names in keys and rules: quoted ones, and those that are no plain words."""
    if isinstance(value, dict):
        return {names.get(key, key): _renamed(item, names) for key, item in value.items()}
    if not isinstance(value, str):
        return value
    for old, new in names.items():
        value = re.sub(rf"\b{old}\b" if "_" in old else f"(?<=`){old}(?=`)", new, value)
    return value


def usage(facts: CardFacts) -> str:
    variant, artifact = next(iter(facts.artifacts.items()))
    name = artifact_folder(Path(), variant).name
    told, language = (" --language auto", " auto") if artifact.spec.prompt else ("", "")
    lookahead = f" {facts.config['encoder']['default_lookahead']}{language}" if language else ""
    example = example_text("openvino")
    fast = "" if KV not in facts.cache_layouts else "\nThe example is for the folders without `kv-`.\n"
    kept = f"\n`{STATEFUL}-*`: {STATE_RULE}.\n" if STATEFUL in facts.cache_layouts else ""
    return f"""With nemoport (`pip install 'nemoport[openvino]'`):

```sh
nemoport verify .
nemoport transcribe {name}{told} recording.wav
```

OpenVINO computes in bf16 where a processor has it, unless it is told not to: the gates ran these graphs in f32, so compile
them with what `metadata.json` has under `runtime`.
{kept}{fast}
With OpenVINO alone (`pip install numpy openvino soundfile`), as `python example.py {name} recording.wav{lookahead}`:

```python
{example}
```"""


def lay_out(build: Path, variants: Sequence[str], folder: Path) -> None:
    write_json(folder / "config.json", config_for(read_json(build / "config.json", "run `nemoport export` first")))
    (folder / "shared").mkdir()
    for name in (*SHARED, LANGUAGES):
        if (build / "shared" / name).is_file():
            copy_file(build / "shared" / name, folder / "shared" / name)
    for variant in variants:
        artifact, place = Artifact.open(build / variant), artifact_folder(folder, variant)
        place.mkdir()
        for name in ["manifest.json", *(entry.path for entry in artifact.manifest.files.values())]:
            copy_file(artifact.folder / name, place / name)


LAYOUT = Layout(NAME, FILES, lay_out, graphs, usage, config_for=config_for, runtime=NAME, artifact_folder=artifact_folder)
