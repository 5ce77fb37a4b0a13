"""The layout of sherpa-onnx: its OnlineRecognizer loads streaming models, its OfflineRecognizer offline ones.

encoder[.SUFFIX].onnx     with the metadata that sherpa-onnx reads
decoder[.SUFFIX].onnx     prediction network
joiner[.SUFFIX].onnx      joint
model[.SUFFIX].onnx       of a CTC model in place of these three: encoder and CTC decoder
tokens.txt                a token and its id a line, <blk> last
config.json               nemoport's own, and the silence that a stream needs before and after its audio

sherpa-onnx feeds tensors by their order, which is that of the build. A streaming package has one lookahead, and all windows
have its length. The graph therefore takes the first window of a stream for a later one and drops the frames that a cache would
hold, and the rest of a stream that fills no window is never decoded. Silence makes up for both (sherpa_onnx_silence.py).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nemoport.artifact import Artifact
from nemoport.cache_layout import NEMO, cache_layout_of
from nemoport.caches import NemoCaches
from nemoport.config import RuntimeConfig, read_config, streaming_encoder
from nemoport.errors import UsageError
from nemoport.export.split import split_decoder
from nemoport.files import write_json
from nemoport.graph_file import save_model
from nemoport.package.examples import example_text
from nemoport.package.layout import (
    USUAL_FRONT_END,
    CardFacts,
    FrontEnds,
    Layout,
    duration_problems,
    front_end_problems,
    piece_problems,
)
from nemoport.package.layouts.onnx_asr import BLANK, GPU_ONLY, SINGLE_FILE_BYTES, WHOLE, save_merged, suffix_of, write_tokens
from nemoport.package.sherpa_onnx_silence import sherpa_onnx_section
from nemoport.prompt import AUTO
from nemoport.spec import CTC, ModelSpec
from nemoport.tokens import read_tokens

CACHE_LAYOUTS = (NEMO,)  # those that sherpa-onnx keeps from window to window
# Of sherpa-onnx/csrc/features.cc and the recognizers' defaults: features of 25 ms every 10 ms at 16 kHz, of as many bands as the
# metadata states.
FRONT_ENDS: FrontEnds = {**USUAL_FRONT_END, "n_mels": range(8, 513)}

EVENTS = (
    "sherpa-onnx takes ends of utterances for text: `<EOU>` stands in the result. `recognizer.reset(stream)` there sets the "
    "decoder back and keeps the encoder's caches, as the example does; without it the model may stay silent from then on."
)
FILES = {
    "config.json": "every parameter and rule below, machine-readable",
    "encoder[.<suffix>].onnx": "encoder, with sherpa-onnx's metadata",
    "decoder[.<suffix>].onnx`, `joiner[.<suffix>].onnx": "prediction network, joint",
    "tokens.txt": "tokens by id, blank last",
    "manifest.json": "gate results; size and sha256 of every file",
}
CTC_FILES = {
    "config.json": FILES["config.json"],
    "model[.<suffix>].onnx": f"{WHOLE}, with sherpa-onnx's metadata",
    **{path: FILES[path] for path in ("tokens.txt", "manifest.json")},
}


def graphs(folder: Path, variant: str, head: str = "") -> tuple[Path, ...]:
    """Returns encoder, decoder and joiner of a variant in a package of this layout; of a CTC model the graph that holds all."""
    suffix = suffix_of(variant)
    if head == CTC:
        return (folder / f"model{suffix}.onnx",)
    return folder / f"encoder{suffix}.onnx", folder / f"decoder{suffix}.onnx", folder / f"joiner{suffix}.onnx"


def usage(facts: CardFacts) -> str:
    """Returns the card's section on how to run the graphs."""
    kind = "streaming" if facts.spec.streaming else "offline"
    example = example_text(f"sherpa_onnx_{kind}{'_ctc' if facts.spec.head == CTC else ''}")
    suffixes = {name: suffix_of(name) for name in facts.artifacts}
    chosen = ".int8" if ".int8" in suffixes.values() else next(iter(suffixes.values()))
    command = f'python example.py . "{chosen}" recording.wav{" auto" if facts.spec.prompt else ""}'
    ours = sherpa_onnx_section(facts.config)
    notes = [f"Suffixes: {', '.join(f'`{s}`: {name}' if s else f'none: {name}' for name, s in suffixes.items())}."]
    if "lookahead" in ours and "chunk_ms" in ours:
        notes.append(
            f"Chunks of {ours['chunk_ms']:g} ms (lookahead {ours['lookahead']}): a package of this layout has one. Another takes "
            "the same files, with its later window and the new frames in it, as in the table above, for `window_size` and "
            "`chunk_shift` in the encoder's metadata."
        )
    if facts.spec.events:
        notes.append(EVENTS)
    notes += [f"`{name.removesuffix('_rule')}`: {rule}." for name, rule in ours.items() if name.endswith("_rule")]
    notes.append("The figures above are of these graphs behind NeMo's own front end and windows; sherpa-onnx has others.")
    return f"""With sherpa-onnx (`pip install sherpa-onnx soundfile`), as `{command}`:

```python
{example}
```

{chr(10).join(f"- {note}" for note in notes)}"""


def lay_out(build: Path, variants: Sequence[str], folder: Path) -> None:
    """Writes graphs, tokens and config.json. Raises UsageError for a model or a variant that sherpa-onnx cannot run."""
    import onnx

    config = read_config(build)
    spec = ModelSpec.from_dict(config["spec"])
    _check(spec, variants, piece_problems(read_tokens(build / "shared" / "tokens.txt"), BLANK, spaces_inside=False))
    metadata = encoder_metadata(spec, config)
    for variant in variants:
        artifact = Artifact.open(build / variant)
        if spec.head == CTC:
            save_merged(artifact, graphs(folder, variant, CTC)[0], metadata, beside=False)
            continue
        encoder, decoder, joiner = graphs(folder, variant)
        split = split_decoder(onnx.load(artifact.decoder))
        _save(onnx.load(artifact.encoder), encoder, metadata)
        _save(split.predictor, decoder, {})
        _save(split.joiner, joiner, {})
    write_tokens(build, folder / "tokens.txt")
    write_json(folder / "config.json", config_for(config))


def config_for(config: RuntimeConfig) -> RuntimeConfig:
    """Returns config.json of a package of this layout: the build's, with a section on the silence that a stream needs."""
    return {**config, "sherpa_onnx": sherpa_onnx_section(config)}


def encoder_metadata(spec: ModelSpec, config: RuntimeConfig) -> dict[str, str]:
    """Returns the metadata_props that sherpa-onnx reads of an encoder; of decoder and joiner it reads none."""
    values = {
        "model_type": "EncDecCTCModelBPE" if spec.head == CTC else "EncDecRNNTBPEModel",
        "url": spec.kind,  # a model is a TDT to sherpa-onnx if this holds "tdt"
        "vocab_size": spec.decoding.vocab_size,
        "normalize_type": "" if spec.frontend.normalize == "NA" else spec.frontend.normalize,
        "feat_dim": spec.frontend.n_mels,
        "subsampling_factor": spec.encoder.subsampling_factor,
    }
    if spec.head != CTC:
        values |= {"pred_rnn_layers": spec.decoding.pred_layers, "pred_hidden": spec.decoding.pred_hidden}
    streaming = spec.streaming
    if streaming:
        lookahead = streaming_encoder(config)["default_lookahead"]
        values |= {
            "window_size": streaming.window_mel_frames(lookahead, first=False),
            "chunk_shift": streaming.chunk_mel_frames(lookahead, first=False),
        }
        for name, shape in NemoCaches.shapes(streaming, 1).items():
            values |= {f"{name}_dim{i}": size for i, size in enumerate(shape[1:], 1)}
    if spec.prompt:
        values |= {"prompt_dictionary": json.dumps(spec.prompt.languages), "auto_prompt_id": spec.prompt.languages[AUTO]}
    return {key: str(value) for key, value in values.items()}


def front_ends(spec: ModelSpec) -> FrontEnds:
    """Returns the front ends that sherpa-onnx computes for a streaming or an offline model."""
    return {**FRONT_ENDS, "normalize": ("NA",) if spec.streaming else ("per_feature",)}


def _spec_problems(spec: ModelSpec) -> list[str]:
    found = front_end_problems(spec, front_ends(spec)) + duration_problems(spec)
    if spec.prompt and AUTO not in spec.prompt.languages:
        found.append(f"a prompt without {AUTO}, which is what it feeds where no language was named")
    return found


def _check(spec: ModelSpec, variants: Sequence[str], problems: Sequence[str] = ()) -> None:
    problems = [*problems]
    problems += [f"{name}, which {GPU_ONLY[name]}" for name in variants if name in GPU_ONLY]
    if others := [name for name in variants if cache_layout_of(name) not in CACHE_LAYOUTS]:
        problems.append(f"{', '.join(others)}, whose caches it does not keep")
    problems += _spec_problems(spec)
    if problems:
        raise UsageError(
            "sherpa-onnx cannot run this.",
            expected="variants of the nemo cache layout in whole files; NeMo's usual front end, normalised per_feature if "
            "offline and not at all if streaming; durations 0, 1, 2, ... of a TDT",
            found="; ".join(problems),
            todo="name other variants (--variants), or take the layout native",
        )


def _save(model: Any, path: Path, metadata: dict[str, str]) -> None:
    """Writes an onnx.ModelProto in one file, as apps that bundle models need it, if it fits; else with its weights beside."""
    import onnx

    metadata = {p.key: p.value for p in model.metadata_props} | metadata
    if model.ByteSize() > SINGLE_FILE_BYTES:
        save_model(model, path, metadata)
    else:
        onnx.helper.set_model_props(model, metadata)
        onnx.save(model, path)


LAYOUT = Layout(
    "sherpa-onnx",
    FILES,
    lay_out,
    graphs,
    usage,
    config_for=config_for,
    ctc_files=CTC_FILES,
    cache_layouts=CACHE_LAYOUTS,
    front_ends=front_ends,
    problems=lambda spec, pieces: [*piece_problems(pieces, BLANK, spaces_inside=False), *_spec_problems(spec)],
)
