"""The layout for LiteRT: a folder a precision, beside shared/.

config.json                           runtime parameters, as the gates were run with them
rules.json                            chunk and cache rules of these graphs
shared/                               filterbank, tokens, tokenizer
<variant>/{encoder,decoder}.tflite    graphs and weights, with litert.json and the variant's manifest.json
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nemoport.config import (
    OfflineEncoderSection,
    RuntimeConfig,
    StreamingEncoderSection,
    WindowRules,
    read_config,
    streaming_encoder,
)
from nemoport.files import write_json
from nemoport.package.examples import example_text
from nemoport.package.layout import CardFacts, Layout
from nemoport.package.layouts import native
from nemoport.package.usage import nemoport_commands, prompt_arguments
from nemoport.runtimes.litert.graphs import DECODER, ENCODER, INTERFACE, cache_tensors
from nemoport.spec import CTC, ModelSpec

RULES_FILE = "rules.json"
FILES = {
    "config.json": "parameters of the model, machine-readable; its rules on the encoder's input are those of the ONNX graphs",
    f"{RULES_FILE}": "the rules below, machine-readable",
    f"<variant>/{ENCODER}": "encoder: `first_<lookahead>` and `later_<lookahead>`; of an offline model `recording_<seconds>s`",
    f"<variant>/{DECODER}": "`predict` (prediction network, one token), `joint_<frames>` (joint, so many encoder frames); of a "
    "CTC model `ctc_<frames>`",
    f"<variant>/{INTERFACE}": "names, types and shapes of every signature",
    "<variant>/manifest.json": "what the variant was made from, by which recipe and tools",
    **{path: what for path, what in native.FILES.items() if path.startswith(("shared/", "manifest"))},
}
RULES: WindowRules = {
    "first_chunk_rule": (
        "run `first_<lookahead>` on first_window_mel_frames frames with nothing before them; it takes no caches. An utterance "
        "shorter than that is zero-padded to it, with `length` the valid frames"
    ),
    "next_chunk_rule": (
        "run `later_<lookahead>` on the last pre_encode_cache_mel_frames frames before the new ones (zeros in front where "
        "fewer came), then new_mel_frames new ones; `length` counts both"
    ),
    "last_chunk_rule": (
        "zero-pad the rest to a full window with `length` the valid frames, cache included; use only the first "
        "encoded_lengths frames of `outputs`"
    ),
    "cache_rule": (
        "each window gives key_new, value_new and conv_new [layers, frames, width]: put them behind the caches along their "
        "second axis and feed the last frames of both next time, as many as the shape says. cache_len counts the frames "
        "given so far, at most those of cache_key. One stream at a time: for several, keep each one's caches"
    ),
}

OFFLINE_RULES: OfflineEncoderSection = {
    "input_rule": (
        "the log-mel of a whole recording, normalised over it and zero-padded to the shortest `recording_<seconds>s` that holds "
        "it, with `length` the valid frames; use only the first encoded_lengths frames of `outputs`. A longer recording goes in "
        "parts that overlap, whose tokens are merged where both have the same"
    ),
}


def graphs(folder: Path, variant: str, head: str = "") -> tuple[Path, Path]:
    """Returns encoder and decoder of a variant in a package of this layout."""
    return folder / variant / ENCODER, folder / variant / DECODER


def intro(facts: CardFacts) -> str:
    """Returns the card's sentence on shapes and signatures."""
    if windows_s := next(iter(facts.artifacts.values())).manifest.recipe.windows_s:
        lengths = " or ".join(map(str, windows_s))
        return f"Static graphs of one recording\n  of up to {lengths} s, a signature for each length, which share their weights"
    return "Static graphs of one stream, a signature\n  for each window of each lookahead, which share their weights"


def config_for(config: RuntimeConfig) -> RuntimeConfig:
    """Returns config.json with the rules of these graphs in it, for the card. The package's own config.json is the build's."""
    shown: RuntimeConfig = {**config, "encoder": _encoder_section(config)}
    if "prompt" in config:
        rule = config["prompt"]["rule"].replace("i64 [batch]", "i32 [1]")
        shown["prompt"] = {**config["prompt"], "rule": rule}
    return shown


def _encoder_section(config: RuntimeConfig) -> StreamingEncoderSection | OfflineEncoderSection:
    if "streaming" not in config["spec"]:
        return OFFLINE_RULES
    tensors = cache_tensors(ModelSpec.from_dict(config["spec"]).require_streaming())
    shapes = {name: list(tensor.of()) for name, tensor in tensors.items()}  # static: one stream
    return {**streaming_encoder(config), **RULES, "cache_shapes": shapes}


def usage(facts: CardFacts) -> str:
    """Returns the card's section on how to run the graphs."""
    variant = next(iter(facts.artifacts))
    command = f"python example.py . {variant} recording.wav{prompt_arguments(facts)}"
    if facts.spec.streaming:
        default = streaming_encoder(facts.config)["default_lookahead"]
        signatures = f"`first_{default}`, then `later_{default}` (or those of another lookahead)"
    else:
        signatures = "the shortest `recording_<seconds>s` that holds the recording"
    if facts.spec.head == CTC:
        head = f"`{DECODER}` by `ctc_<frames>` on its frames: the best token of each"
        return f"""With nemoport (`pip install 'nemoport[litert]'`):

{nemoport_commands(facts, variant)}

In an app: `{ENCODER}` by {signatures}, {head}."""
    example = example_text("litert" if facts.spec.streaming else "litert_offline")
    return f"""With nemoport (`pip install 'nemoport[litert]'`):

{nemoport_commands(facts, variant)}

In an app: `{ENCODER}` by {signatures}, `{DECODER}` by
`predict` once a token and `joint_<frames>` on the encoder frames not yet decoded. With the interpreter alone
(`pip install numpy ai-edge-litert soundfile`), as `{command}`:

```python
{example}
```"""


def lay_out(build: Path, variants: Sequence[str], folder: Path) -> None:
    """Copies the files of the layout native and writes rules.json. Raises ArtifactError for a file that the build lacks."""
    native.lay_out(build, variants, folder)
    encoder = _encoder_section(read_config(build))
    kept = {**RULES, "cache_shapes": encoder["cache_shapes"]} if "cache_shapes" in encoder else OFFLINE_RULES
    write_json(folder / RULES_FILE, dict(kept))


LAYOUT = Layout(
    name="litert",
    files=FILES,
    lay_out=lay_out,
    graphs=graphs,
    usage=usage,
    config_for=config_for,
    runtime="litert",
    artifact_folder=native.artifact_folder,
    intro=intro,
)
