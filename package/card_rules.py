"""Sections of the card that hold rules: each as config.json has it, which the runtime itself reads."""

from __future__ import annotations

from nemoport.cache_layout import KV, NEMO
from nemoport.config import transducer_decoder
from nemoport.events import END_OF_BACKCHANNEL, END_OF_UTTERANCE, PIECES
from nemoport.markdown import table
from nemoport.package.layout import CardFacts
from nemoport.package.manifest import SBOM, SUMS
from nemoport.spec import CTC


def files(facts: CardFacts) -> str:
    """Returns the section that lists the package's files."""
    prompted = facts.spec.prompt is not None
    listed = (facts.layout.ctc_files if facts.spec.head == CTC else None) or facts.layout.files
    rows = [(f"`{path}`", what) for path, what in listed.items() if prompted or "languages.json" not in path]
    rows += [
        (f"`{SUMS}`", "the same hashes, for `sha256sum -c`"),
        (f"`{SBOM}`", "bill of materials (CycloneDX): files, checkpoint, tools"),
        *([(f"`{facts.plot}`", "the picture above")] if facts.plot else []),
        *([(f"`{facts.benchmark}`", "word error rates on a benchmark, as the Hub reads them")] if facts.benchmark else []),
    ]
    return "## Files\n\n" + table(("path", "holds"), rows)


_SILENCE = """
- Silence: a band that does not move becomes the rounding of its mean, a float32 sum, over 1e-5: up to 0.4. By the length of a
  digital silence NeMo may emit a token there. nemoport rounds as NeMo on an x86 CPU and emits the same; another front end, and
  so the graph in this package, may emit another one. `nemoport transcribe --trim-silence` leaves silence out."""


def front_end(facts: CardFacts) -> str:
    """Returns the section on audio and log-mel."""
    spec = facts.spec.frontend
    rate, bins = spec.sample_rate_hz, spec.n_fft // 2 + 1
    normalised = "none" if spec.normalize == "NA" else "each band to mean 0 and deviation 1 over the whole recording"
    silence = "" if spec.normalize == "NA" else _SILENCE
    return f"""## Front end

- Audio: mono, {rate} Hz, f32 at full scale 1.0. Preemphasis {spec.preemphasis} over the whole stream.
- Frames of {spec.n_fft} samples centred on every {spec.hop_samples}th sample, zeros outside the signal; symmetric Hann
  window of {spec.win_samples} samples; power spectrum of {bins} bins.
- {spec.n_mels} mel bands (slaney, [1, {spec.n_mels}, {bins}]); log(energy + {spec.log_guard!r}); normalisation: {normalised}.
- A recording of n samples has n // {spec.hop_samples} frames; layout [{spec.n_mels}, frames], band by band.{silence}"""


def chunks(facts: CardFacts) -> str:
    """Returns the section on the encoder's input: chunks and caches of a streaming model, recordings of an offline one."""
    encoder = facts.config["encoder"]
    if "input_rule" in encoder:
        windows = f"\n- Streaming: {encoder['buffered']['rule']}." if "buffered" in encoder else ""
        return f"## Encoder\n\n- Input: {encoder['input_rule']}.\n- {_frame(facts)}.{windows}"
    rows = []
    for lookahead in facts.lookaheads:
        chunk = encoder["chunks_by_lookahead"][str(lookahead)]
        first, later = chunk["first_window_mel_frames"], chunk["window_mel_frames"]
        frames = (str(first), f"{later} = {encoder['pre_encode_cache_mel_frames']} + {chunk['new_mel_frames']}")
        rows.append((str(lookahead), f"{chunk['latency_ms']:g} ms", *frames, str(chunk["encoder_frames"])))
    head = ("lookahead", "audio per chunk", "first window, mel frames", "later windows, mel frames", "encoder frames")
    rules = [_caches(encoder["cache_rule"], encoder["cache_shapes"])] if NEMO in facts.cache_layouts else []
    if KV in facts.cache_layouts:
        shown = {name.replace("_0", "_<layer>"): shape for name, shape in encoder["kv_cache_shapes"].items()}
        first = [name for name in shown if not name[-1].isdigit()]
        rules.append(_caches(encoder["kv_cache_rule"], {name: shown[name] for name in first}))
    within = f"\n- Attention: {encoder['attention_rule']}." if "attention_rule" in encoder else ""
    return f"""## Chunks and caches

Default lookahead: {encoder["default_lookahead"]}. {_frame(facts)}.

{table(head, rows)}

- First chunk: {encoder["first_chunk_rule"]}.
- Later chunks: {encoder["next_chunk_rule"]}.
- Last chunk: {encoder["last_chunk_rule"]}.
- Flush: {encoder["flush_rule"]}.{within}
{chr(10).join(rules)}"""


def _frame(facts: CardFacts) -> str:
    return f"An encoder frame is {1000 * facts.config['frame_seconds']:g} ms of audio"


def _caches(rule: str, shapes: dict[str, list[int]]) -> str:
    lines = [f"- Caches: {rule}.", *(f"- `{name}`: {shape}, zeros at first" for name, shape in shapes.items())]
    return "\n".join(lines)


def prompt(facts: CardFacts) -> str:
    """Returns the section on languages, "" for a model without a prompt."""
    rules = facts.config.get("prompt")
    if not rules:
        return ""
    tags = ", ".join(f"`<{language}>`" for language in sorted(rules["language_tags"])) or "none"
    names: dict[int, list[str]] = {}
    for name, slot in rules["languages"].items():
        names.setdefault(slot, []).append(name)
    listed = "; ".join(f"{slot}: {', '.join(names[slot])}" for slot in sorted(names))
    return f"""## Languages

- Prompt: {rules["rule"]}.
- Tags: {rules["tag_rule"]}. In this vocabulary: {tags}.
- Slots of {rules["slots"]}, as the checkpoint names them (it does not list which of them it was trained on): {listed}."""


def decoder(facts: CardFacts) -> str:
    """Returns the section on blank, states and, of a TDT model, durations; of a CTC model on its rule."""
    if ctc := facts.config.get("ctc"):
        return f"""## Decoder

- Blank is token {ctc["blank_id"]} of {ctc["vocab_size"]}. The graph takes the encoder's frames and yields log-probabilities.
- {ctc["rule"][0].upper()}{ctc["rule"][1:]}."""
    rules = transducer_decoder(facts.config)
    states = " and ".join(f"`{name}`" for name in rules.get("state_names", ("input_states_1", "input_states_2")))
    durations = ""
    if "durations" in rules and "duration_rule" in rules:
        durations = f"\n- Durations {rules['durations']}: {rules['duration_rule']}."
    return f"""## Decoder

- Blank is token {rules["blank_id"]} of {rules["vocab_size"]}, and the first target of a stream is {rules["first_target"]}.
- {states}: {rules["state_shape"]}, zeros at first; {rules["state_rule"]}.
- At most {rules["max_symbols_per_frame"]} tokens on one encoder frame. The graph yields raw logits.{durations}"""


def events(facts: CardFacts) -> str:
    """Returns the section on ends of utterances, "" for a model that marks none."""
    rules = facts.config.get("events")
    if not rules:
        return ""
    pieces = dict(zip((END_OF_UTTERANCE, END_OF_BACKCHANNEL), PIECES, strict=True))
    listed = ", ".join(f"`{pieces[kind]}` is token {token}" for kind, token in rules["tokens"].items() if kind in pieces)
    reset = f"\n- Reset: {rules['reset_rule']}." if "reset_rule" in rules else ""
    return f"""## Ends of utterances

- Events: {listed}: {rules["rule"]}.{reset}"""
