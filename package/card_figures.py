"""Sections of the card that hold figures: each is from a gate's result, or shown as not measured."""

from __future__ import annotations

from nemoport.buffered import ChunkContext
from nemoport.markdown import table
from nemoport.package.card_data import NOT_MEASURED, Measured
from nemoport.package.layout import CardFacts
from nemoport.spec import Lookahead, context_name

ABOUT_FIGURES = """

Every figure with its limit is in `manifest.json`. The oracle's digest names checkpoint, evaluation audio and NeMo's
version; that of the calibration audio its recordings and transcripts."""


def variants(facts: CardFacts) -> str:
    """Returns the section on size, accuracy and speed of each variant."""
    rows = []
    for name, artifact in facts.artifacts.items():
        figures, entries = facts.figures[name], artifact.manifest.files.values()
        rows.append(
            (
                f"`{name}`",
                str(len(entries)),
                f"{facts.sizes[name] / 1e6:.1f} MB",
                figures.show_difference("all lookaheads: difference"),
                figures.show_differing("all"),
                figures.show("tokens", "different", "{:.0f}"),
                figures.show("cost", "speed", "{:.1f}"),
                figures.show("cost", "peak memory", "{:.0f} MB", 1e-6),
            )
        )
    head = (
        "variant", "graph files", "size", "WER points above NeMo (95 %)", "runs not token-exact", "tokens other than NeMo's",
        "times real time", "peak memory",
    )  # fmt: skip
    picture = f"\n\n![WER points above NeMo and size of each variant]({facts.plot})" if facts.plot else ""
    return "## Variants\n\n" + table(head, rows) + picture


def accuracy(facts: CardFacts) -> str:
    """Returns the section on accuracy at each lookahead, and by language where that was measured."""
    rows = []
    for name, figures in facts.figures.items():
        for lookahead in facts.lookaheads:
            case = context_name(lookahead)
            exact = next((c for c in (f"{case}, full", f"{case}, nemo") if figures.find("tokens", c)), f"{case}, full")
            rows.append(
                (
                    f"`{name}`",
                    "all" if lookahead is None else str(lookahead),
                    _latency(facts, lookahead),
                    figures.show("wer", f"{case}: WER"),
                    figures.show("wer", f"{case}: NeMo's WER"),
                    figures.show_difference(f"{case}: difference"),
                    figures.show_differing(exact),
                )
            )
    languages = _by_language(facts)
    head = ("variant", "lookahead", "chunk", "WER %", "NeMo's WER %", "difference (95 %)", "utterances not token-exact")
    return (
        "## Accuracy\n\n"
        + table(head, rows)
        + (f"\n\n{languages}" if languages else "")
        + "\n\nNeMo is the checkpoint itself in fp32, on the same audio. Differences are in WER points; their intervals are\n"
        "those of a paired bootstrap over utterances. A run is an utterance at one lookahead by one flush rule."
    )


def _by_language(facts: CardFacts) -> str:
    rows = []
    for name, figures in facts.figures.items():
        for result in figures.results:
            if result.gate == "wer" and result.case.startswith("language ") and result.case.endswith(": rate"):
                case = result.case.removesuffix(": rate")
                rows.append(
                    (
                        case.removeprefix("language "),
                        f"`{name}`",
                        figures.show("wer", result.case, f"{{:.2f}} {result.unit}"),
                        figures.show("wer", f"{case}: NeMo's rate"),
                        figures.show_difference(f"{case}: difference"),
                    )
                )
    head = ("language", "variant", "error rate", "NeMo's", "difference (95 %)")
    return "By language, all lookaheads pooled:\n\n" + table(head, sorted(rows, key=lambda row: row[0])) if rows else ""


def measured_on(facts: CardFacts) -> str:
    """Returns the section on audio, machines and gates of the figures."""
    rows = []
    for name, artifact in facts.artifacts.items():
        manifest, figures = artifact.manifest, facts.figures[name]
        speed, wer = figures.find("cost", "speed"), figures.find("wer", "all lookaheads: difference")
        rows.append(
            (
                f"`{name}`",
                _audio_of(wer),
                _audio_of(speed),
                f"`{wer.result.oracle_digest[:16]}`" if wer and wer.result.oracle_digest else NOT_MEASURED,
                manifest.machine,
                f"`{manifest.corpus_digest[:16]}`" if manifest.corpus_digest else "none",
                ", ".join(f"{gate} ({count})" for gate, count in figures.gates().items()),
            )
        )
    head = (
        "variant", "accuracy on", "speed and memory on", "oracle", "built on", "calibration audio", "gates passed (figures)",
    )  # fmt: skip
    return "## What was measured\n\n" + table(head, rows) + ABOUT_FIGURES


def _audio_of(figure: Measured | None) -> str:
    return (figure.result.evidence or f"{figure.result.n} utterances") if figure else NOT_MEASURED


def limits(facts: CardFacts) -> str:
    """Returns the section on what was not measured or cannot be done."""
    missing = sorted(
        {
            f"{what} of `{name}`"
            for name, figures in facts.figures.items()
            for what, gate, case in (
                ("speed", "cost", "speed"),
                ("memory", "cost", "peak memory"),
                ("WER", "wer", "all lookaheads: difference"),
                ("token-exact share", "tokens", "all"),
                ("tokens other than NeMo's", "tokens", "different"),
            )
            if figures.find(gate, case) is None
        }
    )
    lines = [
        "Accuracy on other speech than the evaluation audio above: not measured.",
        "Speed and memory are those of the machine named above and of one stream; on others: not measured.",
        "Execution providers other than the one that the gates ran on: not measured.",
        *facts.layout.limits,
        *_untrained(facts),
        "What the base model cannot do, these graphs cannot either.",
        *([f"Not measured: {', '.join(missing)}."] if missing else []),
    ]
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _latency(facts: CardFacts, lookahead: Lookahead) -> str:
    if lookahead is None:
        return "all"
    if isinstance(lookahead, ChunkContext):
        return f"{1000 * lookahead.latency_enc_frames * facts.spec.frame_seconds:g} ms"
    return f"{facts.spec.require_streaming().chunk_ms(lookahead, facts.spec.frontend):g} ms"


def _untrained(facts: CardFacts) -> list[str]:
    streaming, buffered = facts.spec.streaming, facts.spec.buffered
    if buffered:
        menus = (" or ".join(map(str, sorted(menu))) for menu in (buffered.chunks, buffered.rights))
        return [f"Windows of {' frames, '.join(menus)} behind them, were trained; do not use others."]
    if streaming is None:
        return ["It transcribes whole recordings, not live streams."]
    return [f"Lookaheads other than {', '.join(map(str, sorted(streaming.lookaheads)))} were not trained; do not use them."]
