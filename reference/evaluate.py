"""Measures word error rates with NeMo itself: offline forward, greedy, at every lookahead.

``python -m nemoport.reference.evaluate CHECKPOINT [--manifest FILE ...] [--lookaheads 13 6 1 0] [--long 60 120 390]``
prints a table of one row for each set (manifest rows with a ``set`` field are split by it). A TDT checkpoint has no
lookahead and emits capitals and punctuation: its columns are the words alone, without either, and the exact text.
A prompted checkpoint has a row for each kind of prompt (``prompted``).
``--long`` joins the clips into passes of that many seconds and scores each minute of them.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import kinds, markdown_table, model, prompted, reader, text, written
from .greedy import transcribe

SAMPLE_RATE_HZ = 16000


def committed_rows(manifest: Path, as_written: bool = False) -> list[dict]:
    """Reads the rows of a manifest, audio_filepath made absolute and the text normalised, unless it is wanted ``as_written``."""
    records = [json.loads(line) for line in manifest.read_text().splitlines()]
    return [
        dict(
            row,
            text=row["text"] if as_written else text.normalise(row["text"]),
            audio_filepath=str(manifest.parent / row["audio_filepath"]),
        )
        for row in records
    ]


def by_set(manifest: Path, as_written: bool) -> dict[str, list[dict]]:
    """Reads the rows of a manifest, grouped by the names of their sets, in order of first appearance."""
    sets: dict[str, list[dict]] = {}
    for row in committed_rows(manifest, as_written):
        sets.setdefault(f"{manifest.stem}: {row['set']}" if "set" in row else manifest.stem, []).append(row)
    return sets


def scores(asr: Any, rows: list[dict], lookaheads: Sequence[int]) -> dict[str, float | None]:
    """Measures WER as a fraction, by column: each lookahead, or for a TDT model the words alone and the exact text.

    The exact one is None where the references have no capitals to compare with.
    """
    import jiwer

    texts = [row["text"] for row in rows]
    if not kinds.is_tdt(asr):
        return {f"lookahead {right}": jiwer.wer(texts, transcribe(asr, rows, right)) for right in lookaheads}
    found = transcribe(asr, rows, None)
    cased = any(line != line.lower() for line in texts)
    return {
        "WER of words": jiwer.wer([written.spoken(line) for line in texts], [written.spoken(line) for line in found]),
        "WER of exact text": jiwer.wer(texts, found) if cased else None,
    }


def table(asr: Any, sets: dict[str, list[dict]], lookaheads: Sequence[int], show: Callable[[str], None] = print) -> dict:
    """Prints a Markdown table of WER in percent; returns {(set, column): WER as a fraction}."""
    columns = ["WER of words", "WER of exact text"] if kinds.is_tdt(asr) else [f"lookahead {right}" for right in lookaheads]
    show(markdown_table.head(["set", "clips", "minutes", "words", *columns]))
    rates = {}
    for name, rows in sets.items():
        found = scores(asr, rows, lookaheads)
        rates |= {(name, column): rate for column, rate in found.items()}
        minutes, words = sum(row["duration"] for row in rows) / 60, sum(len(row["text"].split()) for row in rows)
        show(markdown_table.row([name, len(rows), f"{minutes:.1f}", words, *map(markdown_table.percent, found.values())]))
    return rates


def errors_by_word(reference: list[str], found: list[str]) -> list[int]:
    """Counts the errors at each reference word; a word too many counts at the one before it (the first, if there is none)."""
    import jiwer

    errors = [0] * len(reference)
    for chunk in jiwer.process_words(" ".join(reference), " ".join(found)).alignments[0]:
        if chunk.type == "insert":
            errors[max(0, chunk.ref_start_idx - 1)] += chunk.hyp_end_idx - chunk.hyp_start_idx
        elif chunk.type != "equal":
            for i in range(chunk.ref_start_idx, chunk.ref_end_idx):
                errors[i] += 1
    return errors


def long_pass(rows: list[dict], seconds: float, pause_s: float, seed: str) -> tuple[np.ndarray, list[tuple[float, int]]]:
    """Joins clips in random order, and again in another, until ``seconds`` are full.

    Returns samples f32 [n] and (start in s, row index) of each clip.
    """
    import soundfile

    rng, order, pieces, n_samples = random.Random(f"long {seed}"), [], [], 0
    places: list[tuple[float, int]] = []
    pause = np.zeros(int(pause_s * SAMPLE_RATE_HZ), np.float32)
    while True:
        order = order or rng.sample(range(len(rows)), len(rows))
        index = order.pop()
        clip = soundfile.read(rows[index]["audio_filepath"], dtype="float32")[0]
        if n_samples + len(clip) > seconds * SAMPLE_RATE_HZ:
            return np.concatenate(pieces), places
        places.append((n_samples / SAMPLE_RATE_HZ, index))
        pieces += [clip, pause]
        n_samples += len(clip) + len(pause)


def long_table(
    asr: Any, rows: list[dict], seconds: float, pause_s: float, seed: str, show: Callable[[str], None] = print
) -> list[tuple[int, int, int]]:
    """Prints WER by minute of one pass, beside that of the same clips one by one.

    Returns (words, errors, errors one by one) of each minute.
    """
    import torch

    samples, places = long_pass(rows, seconds, pause_s, seed)
    with torch.no_grad():
        frames, n_frames = asr.forward(
            input_signal=torch.from_numpy(samples)[None], input_signal_length=torch.tensor([len(samples)])
        )
        whole = asr.decoding.rnnt_decoder_predictions_tensor(frames, n_frames, return_hypotheses=True)[0].text
    wanted = sorted({index for _, index in places})
    alone = dict(zip(wanted, transcribe(asr, [rows[i] for i in wanted], None), strict=True))
    spoken_rows = [written.spoken(row["text"]).split() for row in rows]
    reference = [word for _, index in places for word in spoken_rows[index]]
    errors = iter(errors_by_word(reference, written.spoken(whole).split()))
    sections = [[0, 0, 0] for _ in range(int(places[-1][0] // 60) + 1)]
    for start_s, index in places:
        section = sections[int(start_s // 60)]
        section[0] += len(spoken_rows[index])
        section[1] += sum(next(errors) for _ in spoken_rows[index])
        section[2] += sum(errors_by_word(spoken_rows[index], written.spoken(alone[index]).split()))
    minutes = [f"{60 * i}-{min(60 * (i + 1), round(len(samples) / SAMPLE_RATE_HZ))} s" for i in range(len(sections))]
    total = [sum(column) for column in zip(*sections, strict=True)]
    show(markdown_table.head([f"one pass of {len(samples) / SAMPLE_RATE_HZ:.0f} s, {len(places)} clips", *minutes, "all"]))
    show(markdown_table.row(["words", *(section[0] for section in [*sections, total])]))
    for column, title in ((1, "WER in one pass"), (2, "WER clip by clip")):
        show(markdown_table.row([title, *(markdown_table.percent(part[column] / part[0]) for part in [*sections, total])]))
    return [(words, errors, errors_alone) for words, errors, errors_alone in sections]


def main() -> None:
    audio = Path(__file__).parent / "audio"
    parser = argparse.ArgumentParser(description="Word error rates of a reference checkpoint, by NeMo.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--manifest", type=Path, nargs="*", help="default: the committed evaluation speech of its kind")
    parser.add_argument("--reader", type=Path, help="manifest of the reader; its held-out sentences are scored")
    parser.add_argument("--lookaheads", type=int, nargs="*", help="default: all that the checkpoint has")
    parser.add_argument("--long", type=float, nargs="*", default=[], help="TDT: lengths of passes in seconds")
    parser.add_argument("--pause", type=float, default=0.4, help="seconds of silence between the clips of a long pass")
    parser.add_argument("--seed", default="0", help="of the order of clips in the long passes")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    import torch

    torch.set_num_threads(args.threads)
    asr = model.restore(args.checkpoint)
    kind = kinds.kind_of(asr)
    sets: dict[str, list[dict]] = {}
    default = dict(streaming="eval.jsonl", tdt="eval-tdt.jsonl", prompt="eval-multi.jsonl")[kind]
    for manifest in args.manifest or [audio / default]:
        sets |= by_set(manifest, as_written=kind != "streaming")
    if args.reader:
        sets["reader, held-out sentences"] = reader.rows(args.reader, held_out=True)
    lookaheads = kinds.context(kind)[1] if args.lookaheads is None else args.lookaheads
    if kind == "prompt":
        prompted.table(asr, prompted.rows_of_people(sets), lookaheads)
    elif lookaheads or args.lookaheads is None:
        table(asr, sets, lookaheads)
    for seconds in args.long:
        print()
        long_table(asr, [row for rows in sets.values() for row in rows], seconds, args.pause, args.seed)


if __name__ == "__main__":
    main()
