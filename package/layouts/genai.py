"""The layout of onnxruntime-genai: its model types `nemotron_speech`, and for offline TDT models `parakeet_tdt`.

<variant>/encoder.onnx[.data]      time-major, if the model streams
<variant>/decoder.onnx             prediction network: i64 targets
<variant>/joint.onnx
<variant>/genai_config.json        sizes, names, front end; an unknown key is an error to its reader
<variant>/tokenizer.json, tokenizer_config.json
config.json                        nemoport's own

A streaming folder has one lookahead, `chunk_samples` of genai_config.json. genai feeds nine zero rows before the first chunk, by
which the graph takes it for a later one and drops their frames, as NeMo's `pad_and_drop_preencoded` does. It cuts the samples
into chunks before it computes their mel rows, so the last row of each lacks what follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nemoport.artifact import Artifact
from nemoport.cache_layout import NEMO
from nemoport.config import read_config
from nemoport.export.split import split_decoder
from nemoport.files import write_json
from nemoport.package.adapted import AdaptedGraph, AdaptedSession
from nemoport.package.boundary import rewire, write_edited
from nemoport.package.examples import example_text
from nemoport.package.genai_files import BLANK, CONTEXT_S, WINDOW_S, chunk_samples, genai_config, sides, tokenizer_files
from nemoport.package.layout import USUAL_FRONT_END, CardFacts, FrontEnds, Layout, front_end_problems
from nemoport.package.refusal import NO_PIECES, USUAL, refuse, variant_problems
from nemoport.session import Session
from nemoport.spec import ModelSpec
from nemoport.tokens import Pieces, read_tokens

RNNT, TDT = "rnnt", "tdt"
ONE = {"batch": 1}
FILES = {
    "<variant>/encoder.onnx`, `.onnx.data": "encoder: graph, weights",
    "<variant>/decoder.onnx`, `joint.onnx": "prediction network, joint",
    "<variant>/genai_config.json": "what onnxruntime-genai reads: sizes, names, front end, chunk",
    "<variant>/tokenizer.json`, `tokenizer_config.json": "tokens by id, blank last, for its `Tokenizer`",
    "config.json": "every parameter and rule below, machine-readable",
    "manifest.json": "gate results; size and sha256 of every file",
}
# Of its nemo_mel_spectrogram.h, which takes sizes from genai_config.json; the window and the bands are NeMo's.
FRONT_ENDS: FrontEnds = {**USUAL_FRONT_END, "n_mels": (80, 128)}


def graphs(folder: Path, variant: str, head: str = "") -> tuple[Path, ...]:
    """Returns encoder, decoder and joint of a variant in a package of this layout."""
    return tuple(folder / variant / f"{name}.onnx" for name in ("encoder", "decoder", "joint"))


def lay_out(build: Path, variants: Sequence[str], folder: Path) -> None:
    """Writes a folder for each variant and config.json. Raises UsageError for what onnxruntime-genai cannot run."""
    import onnx

    config = read_config(build)
    spec = ModelSpec.from_dict(config["spec"])
    pieces = read_tokens(build / "shared" / "tokens.txt")
    _check(spec, variants, pieces)
    for variant in variants:
        artifact = Artifact.open(build / variant)
        (folder / variant).mkdir()
        encoder, decoder, joint = graphs(folder, variant)
        write_edited(artifact.encoder, encoder, lambda model: rewire(model, *sides(spec)["encoder"], ONE), beside=True)
        split = split_decoder(onnx.load(artifact.decoder))
        for model, path in ((split.predictor, decoder), (split.joiner, joint)):
            rewire(model, *sides(spec)[path.stem], ONE)
            onnx.save(model, path)
        write_json(folder / variant / "genai_config.json", genai_config(spec, config))
        for name, content in tokenizer_files(pieces).items():
            write_json(folder / variant / name, content)
    write_json(folder / "config.json", config)


def open_variant(folder: Path, variant: str, spec: ModelSpec) -> Session:
    """Opens a variant of such a package in nemoport's own runtime."""
    paths = graphs(folder, variant)
    return AdaptedSession(spec, *(AdaptedGraph(path, *sides(spec)[path.stem]) for path in paths))


def front_ends(spec: ModelSpec) -> FrontEnds:
    """Returns the front ends that onnxruntime-genai computes for a streaming or an offline model."""
    return {**FRONT_ENDS, "normalize": ("NA",) if spec.streaming else ("per_feature",)}


def problems(spec: ModelSpec, pieces: Pieces) -> list[str]:
    """Returns each thing of a model that onnxruntime-genai cannot run."""
    if spec.head not in (RNNT, TDT) or bool(spec.streaming) != (spec.head == RNNT):
        return [f"a model of the kind {spec.kind}: it has cache-aware RNNT and offline TDT models"]
    found = front_end_problems(spec, front_ends(spec))
    if spec.events:
        found.append("a model that marks ends of utterances: it cannot set the decoder back, and the model falls silent")
    if spec.head == TDT and spec.decoding.joint_hidden != spec.decoding.pred_hidden:
        found.append("a joint that is not as wide as the prediction network, which it takes to be the same")
    if pieces.rule.plain:
        found.append("pieces that look like a byte and are none")
    return found + [f"a piece named {BLANK}, as the blank" for piece in pieces if piece == BLANK]


def _check(spec: ModelSpec, variants: Sequence[str], pieces: Pieces = NO_PIECES) -> None:
    found = variant_problems(variants) + problems(spec, pieces)
    refuse("onnxruntime-genai", f"a cache-aware RNNT or an offline TDT model, {USUAL}", found)


def usage(facts: CardFacts) -> str:
    """Returns the card's section on how to run the graphs."""
    streams = facts.spec.streaming is not None
    variant = next(iter(facts.artifacts))
    command = f"python example.py {variant} recording.wav{' auto' if facts.spec.prompt else ''}"
    return f"""With onnxruntime-genai (`pip install onnxruntime-genai soundfile`), as `{command}`:

```python
{example_text(f"genai_{'streaming' if streams else 'offline'}")}
```

{chr(10).join(f"- {note}" for note in (_streaming_notes(facts) if streams else _offline_notes()))}
- The figures above are of these graphs behind NeMo's own front end; what onnxruntime-genai's own changes is stated here."""


def _streaming_notes(facts: CardFacts) -> list[str]:
    lookaheads = [one for one in facts.lookaheads if isinstance(one, int)]
    sizes = ", ".join(f"{chunk_samples(facts.spec, one)} (lookahead {one})" for one in lookaheads)
    first = facts.spec.encoder.subsampling_factor - 1
    lead = first * facts.spec.frontend.hop_samples
    notes = [
        f"A folder has one lookahead. Another takes the same graphs and another `chunk_samples` in genai_config.json: {sizes}.",
        f"Its first chunk is as long as the others, where NeMo's is {first} rows shorter. The example feeds {lead} samples of "
        "silence first, and chunks begin where NeMo's do; without it they say other words here and there, no worse ones.",
        "It computes the rows of each chunk from the samples of that chunk, so the last row lacks 40 samples. Given the same "
        "rows its tokens are nemoport's.",
        "`flush()` pads the rest of the audio to a chunk and no more. The example feeds half a second of silence before it: at "
        "lookahead 0 words come that late.",
        "Leave `vad` out of genai_config.json: it drops whole chunks, and the encoder's caches then lack them.",
    ]
    if facts.spec.prompt:
        notes.append("Without `lang_id` it feeds slot 0. `example.py` looks the language up in config.json.")
    return notes


def _offline_notes() -> list[str]:
    return [
        f"Recordings of up to {WINDOW_S} s are encoded as a whole, longer ones in windows of that with {CONTEXT_S} s around "
        "them; mel rows are normalised over the whole recording.",
        "A blank with duration 0 goes on by the best other duration, where NeMo goes on by one frame.",
    ]


LAYOUT = Layout(
    "genai",
    FILES,
    lay_out,
    graphs,
    usage,
    cache_layouts=(NEMO,),
    front_ends=front_ends,
    problems=problems,
    open_variant=open_variant,
    tags=("onnxruntime-genai",),
)
