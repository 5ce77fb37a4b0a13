"""The model card: every figure in it comes from the gate results, and every rule from config.json."""

from __future__ import annotations

import json

from nemoport.package.card_figures import accuracy, limits, measured_on, variants
from nemoport.package.card_rules import chunks, decoder, events, files, front_end, prompt
from nemoport.package.layout import CardFacts
from nemoport.package.terms import LICENCES
from nemoport.spec import CTC

TAGS = ("asr", "speech-recognition", "fastconformer", "nemoport")
STREAMING = """One graph, dynamic in batch and
  time, serves every lookahead of the checkpoint, and first, later and last chunks."""
OFFLINE = """dynamic in batch and time. It encodes
  whole recordings; its attention goes over blocks, so that memory grows with their length and not with its square."""


def card(facts: CardFacts) -> str:
    """Returns README.md of the package: Markdown behind the YAML head that the Hub reads."""
    figures = (variants, accuracy, measured_on)
    own = facts.layout.rules  # where the graphs have other inputs and outputs than ONNX's
    rules = (files, front_end, own, events) if own else (files, front_end, chunks, prompt, decoder, events)
    sections = (_head, _intro, *figures, *rules, _usage, limits, _licence)
    return "\n\n".join(text for section in sections if (text := section(facts).strip("\n"))) + "\n"


def _head(facts: CardFacts) -> str:
    terms = facts.terms
    rows: dict[str, object] = {"license": terms.licence_id if terms.licence_id in LICENCES else "other"}
    if terms.licence_id not in LICENCES:
        rows |= {"license_name": terms.licence_id, "license_link": terms.licence.url}
    if terms.base_model:
        # Of the Hub's relations the nearest to a conversion, fp32 too: where none is stated, the Hub takes it for a fine-tune.
        rows |= {"base_model": terms.base_model, "base_model_relation": "quantized"}
    languages = facts.config.get("prompt")
    tagged = languages["language_tags"] if languages else {}
    if terms.language or tagged:
        rows["language"] = terms.language or sorted({name.partition("-")[0] for name in tagged})
    rows |= {"pipeline_tag": "automatic-speech-recognition", "library_name": facts.layout.library or facts.runtime.library}
    rows |= facts.layout.head
    lines = [f"{key}: {json.dumps(value)}" for key, value in rows.items()]  # quoted: a bare `no` is no language
    consumer = (facts.layout.name,) if facts.layout.tags is None else facts.layout.tags
    tags = dict.fromkeys((facts.runtime.library, *consumer, *TAGS, *facts.spec.kind.split("-")))
    return "\n".join(["---", *lines, "tags:", *(f"- {tag}" for tag in tags), "---"])


def _intro(facts: CardFacts) -> str:
    spec, decoding = facts.spec, facts.spec.decoding
    size = f"{spec.encoder.n_layers} layers of width {spec.encoder.d_model}"
    title, family = ("streaming", "cache-aware FastConformer") if spec.streaming else ("offline", "FastConformer")
    if facts.layout.intro:
        encoder = f"{family}, {size}. {facts.layout.intro(facts)}."
    else:
        encoder = f"{family}, {size}. {STREAMING}" if spec.streaming else f"{family}, {size}, {OFFLINE}"
    if spec.buffered:
        title, encoder = "offline and streaming", f"{encoder} It also streams by windows of audio."
    layers = f", {decoding.pred_layers} LSTM layers of width {decoding.pred_hidden}"
    model = "token-and-duration transducer (TDT)" if decoding.durations else "transducer"
    if spec.head == CTC:
        model, layers = "CTC", ""
    origin = f"[{facts.terms.base_model}](https://huggingface.co/{facts.terms.base_model})"
    revision = f" at revision `{facts.terms.revision}`" if facts.terms.revision else ""
    source = f"{origin}{revision}" if facts.terms.base_model else f"the {_container(facts)} `{facts.name}`"
    return f"""# {facts.name}: {title} speech recognition in {facts.runtime.title}

{facts.runtime.title} graphs of {source}, made and checked by nemoport.

- Encoder: {encoder}
{_language(facts)}- Decoder: {model}{layers}, {decoding.vocab_size} tokens and blank.
- Every variant here passed every gate that it is held to, against NeMo itself.

Checkpoint: sha256 `{facts.checkpoint_sha256}`."""


def _container(facts: CardFacts) -> str:
    return "Hugging Face checkpoint" if "format" in facts.config["checkpoint"] else "NeMo checkpoint"


def _language(facts: CardFacts) -> str:
    if facts.spec.prompt is None:
        return ""
    name = "one_hot" if facts.layout.rules else "prompt_index"
    return f"- Language: chosen for each stream, and each window, by the input `{name}`, or found out by the model.\n"


def _usage(facts: CardFacts) -> str:
    return f"## Use\n\n{facts.layout.usage(facts)}"


def _licence(facts: CardFacts) -> str:
    terms = facts.terms
    author = f", by {terms.holder}" if terms.holder else ""
    return f"## Licence\n\n[{terms.licence.name}]({terms.licence.url}){author}. See `LICENSE`."
