"""The layout of the Rust crate parakeet-rs and of voxtype, which has it: cache-aware streaming RNNT, prompted models too.

<variant>/encoder.onnx, .onnx.data   caches layer first, of fixed sizes; metadata: chunk and mel cache
<variant>/decoder_joint.onnx         prediction network and joint, fused
<variant>/tokenizer.model            SentencePiece; the number of its pieces is taken for the blank
config.json                          nemoport's own

It feeds nine zero mel frames before the first chunk and full windows only, each with its full length. So the graph takes the
first window for a later one, as NeMo's `pad_and_drop_preencoded` does. States of 2 x 640 and 128 bands are built in.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nemoport.artifact import Artifact
from nemoport.cache_layout import NEMO
from nemoport.config import read_config, streaming_encoder
from nemoport.export.sentencepiece_model import read_model
from nemoport.files import write_json
from nemoport.package.adapted import AdaptedGraph, AdaptedSession
from nemoport.package.boundary import Port, Side, rewire, write_edited
from nemoport.package.copying import copy_file
from nemoport.package.layout import USUAL_FRONT_END, CardFacts, FrontEnds, Layout, front_end_problems, piece_problems
from nemoport.package.refusal import NO_PIECES, USUAL, refuse, variant_problems
from nemoport.prompt import AUTO
from nemoport.session import Session
from nemoport.spec import ModelSpec
from nemoport.tokens import Pieces, read_tokens

LAYER_FIRST, ONE = (1, 0, 2, 3), {"batch": 1}
INPUTS: Side = {
    "audio_signal": Port("processed_signal"),
    "length": Port("processed_signal_length"),
    "cache_last_channel": Port("cache_last_channel", LAYER_FIRST),
    "cache_last_time": Port("cache_last_time", LAYER_FIRST),
    "cache_last_channel_len": Port("cache_last_channel_len"),
}
PROMPT: Side = {"prompt_index": Port("prompt_index")}
OUTPUTS: Side = {
    "outputs": Port("encoded"),
    "encoded_lengths": Port("encoded_len"),
    "cache_last_channel_next": Port("cache_last_channel_next", LAYER_FIRST),
    "cache_last_time_next": Port("cache_last_time_next", LAYER_FIRST),
    "cache_last_channel_next_len": Port("cache_last_channel_len_next"),
}
DECODER = {name: Port(name) for name in ("encoder_outputs", "targets", "target_length", "input_states_1", "input_states_2")}
DECODED = {name: Port(name) for name in ("outputs", "prednet_lengths", "output_states_1", "output_states_2")}
TOKENIZER = "tokenizer.model"

FILES = {
    "<variant>/encoder.onnx`, `.onnx.data": "encoder: graph, weights",
    "<variant>/decoder_joint.onnx": "prediction network and joint, fused",
    f"<variant>/{TOKENIZER}": "the SentencePiece model",
    "config.json": "every parameter and rule below, machine-readable",
    "manifest.json": "gate results; size and sha256 of every file",
}
# Of its nemotron.rs, built in.
FRONT_ENDS: FrontEnds = {**USUAL_FRONT_END, "n_mels": (128,), "normalize": ("NA",)}
STATES = (2, 640)  # layers and width of the prediction network
SYMBOLS = 10  # a frame
AUTO_SLOT = 101
VOXTYPE_FRAMES = 7  # of a chunk, 560 ms: how much voxtype flushes


def sides(spec: ModelSpec) -> tuple[Side, Side]:
    """Returns inputs and outputs of the encoder."""
    return {**INPUTS, **(PROMPT if spec.prompt else {})}, OUTPUTS


def graphs(folder: Path, variant: str, head: str = "") -> tuple[Path, ...]:
    """Returns encoder and decoder of a variant in a package of this layout."""
    return folder / variant / "encoder.onnx", folder / variant / "decoder_joint.onnx"


def lay_out(build: Path, variants: Sequence[str], folder: Path) -> None:
    """Writes a folder for each variant and config.json. Raises UsageError for what parakeet-rs cannot run."""
    config = read_config(build)
    spec = ModelSpec.from_dict(config["spec"])
    tokenizer = build / "shared" / TOKENIZER
    _check(spec, variants, read_tokens(build / "shared" / "tokens.txt"), _tokenizer_problems(tokenizer, spec))
    metadata = {
        "chunk_size_output_frames": str(streaming_encoder(config)["default_lookahead"] + 1),
        "pre_encode_cache": str(spec.require_streaming().pre_encode_cache_mel_frames),
    }
    for variant in variants:
        artifact = Artifact.open(build / variant)
        (folder / variant).mkdir()
        encoder, decoder = graphs(folder, variant)
        write_edited(artifact.encoder, encoder, lambda model: rewire(model, *sides(spec), ONE), beside=True, metadata=metadata)
        write_edited(artifact.decoder, decoder, lambda model: rewire(model, DECODER, DECODED, ONE), beside=False)
        copy_file(tokenizer, folder / variant / TOKENIZER)
    write_json(folder / "config.json", config)


def open_variant(folder: Path, variant: str, spec: ModelSpec) -> Session:
    """Opens a variant of such a package in nemoport's own runtime."""
    encoder, decoder = graphs(folder, variant)
    return AdaptedSession(spec, AdaptedGraph(encoder, *sides(spec)), AdaptedGraph(decoder, DECODER, DECODED))


def problems(spec: ModelSpec, pieces: Pieces) -> list[str]:
    """Returns each thing of a model that parakeet-rs cannot run."""
    if not spec.streaming or spec.head != "rnnt":
        return [f"a model of the kind {spec.kind}: it has cache-aware RNNT models"]
    found, decoding = front_end_problems(spec, FRONT_ENDS), spec.decoding
    if (states := (decoding.pred_layers, decoding.pred_hidden)) != STATES:
        found.append(f"states of {states[0]} x {states[1]}, where it feeds {STATES[0]} x {STATES[1]}")
    if decoding.max_symbols_per_frame != SYMBOLS:
        found.append(f"{decoding.max_symbols_per_frame} tokens on a frame at most, where it has {SYMBOLS}")
    if spec.events:
        found.append("a model that marks ends of utterances: it does not set the decoder back, and the model falls silent")
    if spec.prompt and spec.prompt.languages.get(AUTO) != AUTO_SLOT:
        found.append(f"a prompt whose {AUTO} is not slot {AUTO_SLOT}, which it feeds where no language was named")
    return found + piece_problems(pieces, "", spaces_inside=True)


def _tokenizer_problems(path: Path, spec: ModelSpec) -> list[str]:
    whole = path.is_file() and len(read_model(path.read_bytes()).pieces) == spec.decoding.vocab_size
    return [] if whole else ["a vocabulary other than that of a SentencePiece model, whose size it takes for the blank"]


def _check(spec: ModelSpec, variants: Sequence[str], pieces: Pieces = NO_PIECES, others: Sequence[str] = ()) -> None:
    found = [*variant_problems(variants), *problems(spec, pieces), *others]
    refuse("parakeet-rs", f"a cache-aware RNNT model with states of 2 x 640, {USUAL}", found)


def usage(facts: CardFacts) -> str:
    """Returns the card's section on how to run the graphs."""
    streaming, encoder = facts.spec.require_streaming(), streaming_encoder(facts.config)
    frames = encoder["default_lookahead"] + 1
    hop = facts.spec.frontend.hop_samples
    chunk = streaming.chunk_mel_frames(frames - 1, first=False) * hop
    variant = next(iter(facts.artifacts))
    language = (
        '\nmodel.set_target_lang("en-US")?;  // of its own table; without it the model finds out' if facts.spec.prompt else ""
    )
    lead = (streaming.subsampling_factor - 1) * hop
    notes = [
        f"Chunks of {frames} encoder frames: `chunk_size_output_frames` in the encoder's metadata. Another lookahead of the "
        "table takes the same graphs, and its frames there.",
        f"Its first chunk is as long as the others, where NeMo's is {lead} samples shorter: the silence before makes up for it.",
        "The 10 ms ahead: it computes the rows of a chunk from the audio that it has, and without them the last row of each is "
        "that of audio which ends there.",
        "It decodes full chunks only: without two of zeros behind the audio the last words are lost.",
        "The graphs were run as parakeet-rs feeds them, by nemoport, in onnxruntime; parakeet-rs itself was not run.",
    ]
    if frames != VOXTYPE_FRAMES:
        notes.append("voxtype flushes 560 ms, whatever the chunk: take lookahead 6 for it.")
    return f"""With parakeet-rs 0.3.6 or later, and apps that have it, such as voxtype, from the folder of a variant:

```rust
let mut model = parakeet_rs::Nemotron::from_pretrained("{variant}", None)?;{language}
let mut audio = vec![0.0; {lead}];  // so that chunks begin where NeMo's do
audio.extend_from_slice(&samples);
audio.extend_from_slice(&[0.0; 2 * {chunk}]);
let (head, rest) = audio.split_at({chunk} + {hop});  // 10 ms ahead, see below
for part in std::iter::once(head).chain(rest.chunks({chunk})) {{
    print!("{{}}", model.transcribe_chunk(part)?);  // decodes one chunk a call at most
}}
```

{chr(10).join(f"- {note}" for note in notes)}"""


LAYOUT = Layout(
    "parakeet-rs",
    FILES,
    lay_out,
    graphs,
    usage,
    cache_layouts=(NEMO,),
    front_ends=lambda spec: FRONT_ENDS,
    problems=problems,
    open_variant=open_variant,
)
