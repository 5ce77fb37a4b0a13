"""The model card: every figure in it comes from the gate results, every rule from config.json, and nothing from memory."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from nemoport.artifact import Artifact
from nemoport.contract import precision_of
from nemoport.export.card_figures import accuracy, limits, measured_on, variants
from nemoport.export.card_rules import chunks, decoder, files, front_end
from nemoport.export.layouts import native
from nemoport.export.results import Figures
from nemoport.export.terms import LICENCES, Terms
from nemoport.variant import FP32

TAGS = ("onnx", "streaming", "asr", "speech-recognition", "fastconformer", "rnnt", "nemoport")
EXAMPLE = Path(native.__file__).with_name("native_example.py")


@dataclass(frozen=True)
class CardFacts:
    """config: config.json of the package; artifacts and figures: of each packaged variant, in the card's order."""

    name: str
    checkpoint_sha256: str
    terms: Terms
    config: dict
    artifacts: dict[str, Artifact]
    figures: dict[str, Figures]

    @property
    def lookaheads(self) -> list[int]:
        return sorted(map(int, self.config["encoder"]["chunks_by_lookahead"]))


def card(facts: CardFacts) -> str:
    """README.md of the package, in Markdown with the Hub's YAML head."""
    figures, rules = (variants, accuracy, measured_on), (files, front_end, chunks, decoder)
    sections = (_head, _intro, *figures, *rules, _usage, limits, _licence)
    return "\n\n".join(section(facts).strip("\n") for section in sections) + "\n"


def _head(facts: CardFacts) -> str:
    terms = facts.terms
    rows = {"license": terms.licence_id if terms.licence_id in LICENCES else "other"}
    if terms.licence_id not in LICENCES:
        rows |= {"license_name": terms.licence_id, "license_link": terms.licence.url}
    if terms.base_model:
        rows["base_model"] = terms.base_model
        if {precision_of(name) for name in facts.artifacts} - {FP32}:
            rows["base_model_relation"] = "quantized"
    if terms.language:
        rows["language"] = terms.language
    rows |= {"pipeline_tag": "automatic-speech-recognition", "library_name": "onnx"}
    lines = [f"{key}: {json.dumps(value)}" for key, value in rows.items()]  # quoted: a bare `no` is no language
    return "\n".join(["---", *lines, "tags:", *(f"- {tag}" for tag in TAGS), "---"])


def _intro(facts: CardFacts) -> str:
    spec = next(iter(facts.artifacts.values())).spec
    streaming, decoding = spec.streaming, spec.decoding
    origin = f"[{facts.terms.base_model}](https://huggingface.co/{facts.terms.base_model})"
    revision = f" at revision `{facts.terms.revision}`" if facts.terms.revision else ""
    source = f"{origin}{revision}" if facts.terms.base_model else f"the NeMo checkpoint `{facts.name}`"
    return f"""# {facts.name}: streaming speech recognition in ONNX

ONNX graphs of {source}, made and checked by nemoport.

- Encoder: cache-aware FastConformer, {streaming.n_layers} layers of width {streaming.d_model}. One graph, dynamic in batch and
  time, serves every lookahead of the checkpoint, and first, later and last chunks.
- Decoder: transducer, {decoding.pred_layers} LSTM layers of width {decoding.pred_hidden}, {decoding.vocab_size} tokens and blank.
- Every variant here passed every gate that it is held to, against NeMo itself.

Checkpoint: sha256 `{facts.checkpoint_sha256}`."""


def _usage(facts: CardFacts) -> str:
    variant = next(iter(facts.artifacts))
    return f"""## Use

With nemoport:

```sh
nemoport verify .
nemoport transcribe {variant} recording.wav
```

With onnxruntime alone (`pip install numpy onnxruntime soundfile`), as `python example.py . {variant} recording.wav`:

```python
{EXAMPLE.read_text(encoding="utf-8").rstrip()}
```"""


def _licence(facts: CardFacts) -> str:
    terms = facts.terms
    author = f", by {terms.holder}" if terms.holder else ""
    return f"## Licence\n\n[{terms.licence.name}]({terms.licence.url}){author}. See `LICENSE`."
