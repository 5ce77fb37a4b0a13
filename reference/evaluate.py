"""Word error rates with NeMo itself: offline forward, greedy, at every lookahead.

``python -m nemoport.reference.evaluate CHECKPOINT [--manifest FILE ...] [--lookaheads 13 6 1 0]``
prints a table of one row for each set (manifest rows with a ``set`` field are split by it).
"""
from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from . import model, reader, text


def transcribe(asr, rows: list[dict], lookahead: int, batch: int = 16) -> list[str]:
    """Greedy texts of rows with absolute audio_filepath, in their order. The model is left as it was (eval assumed)."""
    import soundfile
    import torch

    asr.encoder.set_default_att_context_size([model.LEFT_CONTEXT_ENC_FRAMES, lookahead])
    texts: list[str] = [""] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: rows[i]["duration"])
    for start in range(0, len(order), batch):
        indices = order[start: start + batch]
        clips = [torch.from_numpy(soundfile.read(rows[i]["audio_filepath"], dtype="float32")[0]) for i in indices]
        with torch.no_grad():  # inference mode would leave its mark on the position table and stop training
            frames, n_frames = asr.forward(
                input_signal=torch.nn.utils.rnn.pad_sequence(clips, batch_first=True),
                input_signal_length=torch.tensor([len(clip) for clip in clips]))
            found = asr.decoding.rnnt_decoder_predictions_tensor(frames, n_frames, return_hypotheses=True)
        for i, hypothesis in zip(indices, found, strict=True):
            texts[i] = hypothesis.text
    return texts


def committed_rows(manifest: Path) -> list[dict]:
    """Rows of a manifest with normalised text and absolute audio paths."""
    records = [json.loads(line) for line in manifest.read_text().splitlines()]
    return [dict(row, text=text.normalise(row["text"]), audio_filepath=str(manifest.parent / row["audio_filepath"]))
            for row in records]


def table(asr, sets: dict[str, list[dict]], lookaheads: list[int], show: Callable[[str], None] = print) -> dict:
    """Prints a Markdown table of WER in percent; returns {(set, lookahead): WER as a fraction}."""
    import jiwer

    show("| set | clips | minutes | words | " + " | ".join(f"lookahead {right}" for right in lookaheads) + " |")
    show("|---|---|---|---|" + "---|" * len(lookaheads))
    rates = {}
    for name, rows in sets.items():
        spoken = [row["text"] for row in rows]
        for right in lookaheads:
            rates[name, right] = jiwer.wer(spoken, transcribe(asr, rows, right))
        minutes, words = sum(row["duration"] for row in rows) / 60, sum(len(line.split()) for line in spoken)
        show(f"| {name} | {len(rows)} | {minutes:.1f} | {words} | "
             + " | ".join(f"{100 * rates[name, right]:.1f}" for right in lookaheads) + " |")
    return rates


def main() -> None:
    audio = Path(__file__).parent / "audio"
    parser = argparse.ArgumentParser(description="Word error rates of a streaming checkpoint, by NeMo.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--manifest", type=Path, nargs="*", default=[audio / "eval.jsonl"])
    parser.add_argument("--reader", type=Path, help="manifest of the reader; its held-out sentences are scored")
    parser.add_argument("--lookaheads", type=int, nargs="*", default=list(model.LOOKAHEADS_ENC_FRAMES))
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    import torch

    torch.set_num_threads(args.threads)
    sets: dict[str, list[dict]] = {}
    for manifest in args.manifest:
        for row in committed_rows(manifest):
            sets.setdefault(f"{manifest.stem}: {row['set']}" if "set" in row else manifest.stem, []).append(row)
    if args.reader:
        sets["reader, held-out sentences"] = reader.rows(args.reader, held_out=True)
    table(model.restore(args.checkpoint), sets, args.lookaheads)


if __name__ == "__main__":
    main()
