"""The layout of parakeet.js (npm) and parakeet_web: that of onnx-asr, of the models that they decode.

parakeet.js takes the file names of onnx-asr in three precisions, and computes features itself. It decodes token-and-duration
transducers; the shape of the decoder's states is built in, 2 x 640, and so is the largest number of tokens on a frame.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from nemoport.config import read_config
from nemoport.package.layout import CardFacts, FrontEnds, Layout, duration_problems, front_end_problems, piece_problems
from nemoport.package.layouts import onnx_asr
from nemoport.package.layouts.onnx_asr import BLANK
from nemoport.package.refusal import NO_PIECES, USUAL, refuse
from nemoport.spec import ModelSpec
from nemoport.tokens import Pieces, read_tokens
from nemoport.variant import FP32

# Variant -> its name in parakeet.js. The names of the files are those of onnx-asr.
PRECISIONS = {FP32: "fp32", "fp16": "fp16", "int8-smoothquant": "int8"}
STATES = (2, 640)  # layers and width of the prediction network
MAX_SYMBOLS = 10  # on a frame
FRONT_ENDS: FrontEnds = onnx_asr.FRONT_ENDS
_SPACE = re.compile(r"\s|\ufeff")  # where JavaScript splits a line of vocab.txt


def usage(facts: CardFacts) -> str:
    """Returns the card's section on how to run the graphs."""
    listed = ", ".join(f'`"{PRECISIONS[variant]}"`: {variant}' for variant in facts.artifacts)
    chosen = PRECISIONS[next(iter(facts.artifacts))]
    return f"""With parakeet.js (`npm install parakeet.js`) in a browser. OWNER/NAME is this repository; precisions: {listed}.

```javascript
import {{ ParakeetModel, getParakeetModel }} from "parakeet.js";

const options = {{ backend: "wasm", encoderQuant: "{chosen}", decoderQuant: "{chosen}" }};
const {{ urls, filenames }} = await getParakeetModel("OWNER/NAME", options);
const model = await ParakeetModel.fromUrls({{ ...urls, filenames, ...options, nMels: {facts.spec.frontend.n_mels} }});
const samples = new Float32Array(16000);  // mono, 16 kHz
console.log((await model.transcribe(samples, 16000)).utterance_text);
```

- Of the features of nemoport parakeet.js has the same tokens; its own features are NeMo's but for the last bits.
- Its text leaves out the space before a word that begins with a letter outside ASCII, such as à; `returnTokenIds: true` and \
`vocab.txt` give the whole text.
- Where a page must not load from a network, set `ort.env.wasm.wasmPaths` itself: version 1.4.4 ignores its own option.
- On WebGPU it takes fp32 of the encoder where int8 was asked for.
- parakeet_web loads the same files."""


def lay_out(build: Path, variants: Sequence[str], folder: Path) -> None:
    """Writes graphs, tokens and config.json, as of onnx-asr. Raises UsageError for a model that parakeet.js cannot run."""
    spec = ModelSpec.from_dict(read_config(build)["spec"])
    _check(spec, variants, read_tokens(build / "shared" / "tokens.txt"))
    onnx_asr.lay_out(build, variants, folder)


def problems(spec: ModelSpec, pieces: Pieces) -> list[str]:
    """Returns each thing of a model that parakeet.js cannot run, whatever the variant."""
    decoding = spec.decoding
    found = piece_problems(pieces, BLANK, spaces_inside=True) + front_end_problems(spec, FRONT_ENDS) + duration_problems(spec)
    if spaced := [piece for piece in pieces if _SPACE.search(piece) and " " not in piece]:
        found.append(f"pieces with a space of another kind: {', '.join(map(repr, spaced[:3]))}")
    if spec.streaming is not None:
        found.append("a cache-aware streaming model, whose caches it does not carry")
    if not decoding.durations:
        return [*found, f"a model with the head {spec.head}, where it decodes TDT"]
    if (states := (decoding.pred_layers, decoding.pred_hidden)) != STATES:
        found.append("states of {} x {}, where it has {} x {}".format(*states, *STATES))
    if decoding.max_symbols_per_frame != MAX_SYMBOLS:
        found.append(f"at most {decoding.max_symbols_per_frame} tokens on a frame, where it has {MAX_SYMBOLS}")
    return found


def _check(spec: ModelSpec, variants: Sequence[str], pieces: Pieces = NO_PIECES) -> None:
    found = problems(spec, pieces) + [f"{name}, which it has no name for" for name in variants if name not in PRECISIONS]
    refuse("parakeet.js", f"an offline TDT model with states of 2 x 640, {USUAL}: {', '.join(PRECISIONS)}", found)


LAYOUT = Layout(
    "parakeet-js",
    onnx_asr.FILES,
    lay_out,
    onnx_asr.graphs,
    usage,
    config_for=onnx_asr.config_for,
    variants=tuple(PRECISIONS),
    shard=onnx_asr.shard,
    front_ends=lambda spec: FRONT_ENDS,
    problems=problems,
    tags=("parakeet.js", "onnx-asr"),
)
