"""Word error rates with NeMo itself: offline forward, greedy, at every lookahead.

``python -m nemoport.reference.evaluate CHECKPOINT [--manifest FILE ...] [--lookaheads 13 6 1 0] [--long 60 120 390]``
prints a table of one row for each set (manifest rows with a ``set`` field are split by it). A TDT checkpoint has no
lookahead and writes capitals and punctuation: its columns are the words alone, as they are heard, and the exact text.
A prompted checkpoint has a row for each kind of prompt (``prompted``).
``--long`` joins the clips into passes of that many seconds and scores each minute of them.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np

from . import model, prompt, reader, text, written

SAMPLE_RATE_HZ = 16000


def transcribe(asr, rows: list[dict], lookahead: int | None, batch: int = 16) -> list[str]:
    """Greedy texts of rows with absolute audio_filepath, in their order. The model is left as it was (eval assumed).

    ``lookahead`` is None for a model of full context.
    """
    return [hypothesis.text for hypothesis in hypotheses(asr, rows, lookahead, batch=batch)]


def hypotheses(asr, rows: list[dict], lookahead: int | None, name: str = prompt.AUTO, batch: int = 16) -> list:
    """NeMo's greedy hypotheses of rows with absolute audio_filepath, in their order; ``name`` is a prompted model's prompt."""
    import soundfile
    import torch

    if lookahead is not None:
        asr.encoder.set_default_att_context_size([model.context(model.kind(asr))[0], lookahead])
    result: list = [None] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: rows[i]["duration"])
    for start in range(0, len(order), batch):
        indices = order[start : start + batch]
        clips = [torch.from_numpy(soundfile.read(rows[i]["audio_filepath"], dtype="float32")[0]) for i in indices]
        with torch.no_grad():  # inference mode would leave its mark on the position table and stop training
            frames, n_frames = prompt.encode(
                asr,
                torch.nn.utils.rnn.pad_sequence(clips, batch_first=True),
                torch.tensor([len(clip) for clip in clips]),
                [name] * len(clips),
            )
            found = asr.decoding.rnnt_decoder_predictions_tensor(frames, n_frames, return_hypotheses=True)
        for i, hypothesis in zip(indices, found, strict=True):
            result[i] = hypothesis
    return result


def committed_rows(manifest: Path, as_written: bool = False) -> list[dict]:
    """Rows of a manifest with absolute audio paths and normalised text, or the text as it stands."""
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
    """Rows of a manifest under the names of their sets, in order of first appearance."""
    sets: dict[str, list[dict]] = {}
    for row in committed_rows(manifest, as_written):
        sets.setdefault(f"{manifest.stem}: {row['set']}" if "set" in row else manifest.stem, []).append(row)
    return sets


def scores(asr, rows: list[dict], lookaheads: list[int]) -> dict[str, float | None]:
    """WER as a fraction, by column: each lookahead, or for a TDT model the words as heard and the exact text.

    The exact one is None where the references have no capitals to compare with.
    """
    import jiwer

    texts = [row["text"] for row in rows]
    if not model.is_tdt(asr):
        return {f"lookahead {right}": jiwer.wer(texts, transcribe(asr, rows, right)) for right in lookaheads}
    found = transcribe(asr, rows, None)
    cased = any(line != line.lower() for line in texts)
    return {
        "WER of words": jiwer.wer([written.spoken(line) for line in texts], [written.spoken(line) for line in found]),
        "WER of exact text": jiwer.wer(texts, found) if cased else None,
    }


def percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.1f}"


def table(asr, sets: dict[str, list[dict]], lookaheads: list[int], show: Callable[[str], None] = print) -> dict:
    """Prints a Markdown table of WER in percent; returns {(set, column): WER as a fraction}."""
    columns = ["WER of words", "WER of exact text"] if model.is_tdt(asr) else [f"lookahead {right}" for right in lookaheads]
    show("| set | clips | minutes | words | " + " | ".join(columns) + " |")
    show("|---|---|---|---|" + "---|" * len(columns))
    rates = {}
    for name, rows in sets.items():
        found = scores(asr, rows, lookaheads)
        rates |= {(name, column): rate for column, rate in found.items()}
        minutes, words = sum(row["duration"] for row in rows) / 60, sum(len(row["text"].split()) for row in rows)
        show(f"| {name} | {len(rows)} | {minutes:.1f} | {words} | " + " | ".join(map(percent, found.values())) + " |")
    return rates


def errors_by_word(reference: list[str], found: list[str]) -> list[int]:
    """Errors at each reference word; a word too many counts at the one before it (the first, if there is none)."""
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
    """Clips in random order, and again in another, until ``seconds`` are full: (samples f32, [(start in s, row index)])."""
    import soundfile

    rng, order, pieces, places, n_samples = random.Random(f"long {seed}"), [], [], [], 0
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
    asr, rows: list[dict], seconds: float, pause_s: float, seed: str, show: Callable[[str], None] = print
) -> list[tuple[int, int, int]]:
    """Prints WER by minute of one pass, beside that of the same clips one by one: [(words, errors, errors one by one)]."""
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
    show(f"| one pass of {len(samples) / SAMPLE_RATE_HZ:.0f} s, {len(places)} clips | " + " | ".join([*minutes, "all"]) + " |")
    show("|---|" + "---|" * (len(sections) + 1))
    show("| words | " + " | ".join(str(section[0]) for section in [*sections, total]) + " |")
    for column, title in ((1, "WER in one pass"), (2, "WER clip by clip")):
        show(f"| {title} | " + " | ".join(percent(part[column] / part[0]) for part in [*sections, total]) + " |")
    return [tuple(section) for section in sections]


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

    from . import prompted

    torch.set_num_threads(args.threads)
    asr = model.restore(args.checkpoint)
    kind = model.kind(asr)
    sets: dict[str, list[dict]] = {}
    default = dict(streaming="eval.jsonl", tdt="eval-tdt.jsonl", prompt="eval-multi.jsonl")[kind]
    for manifest in args.manifest or [audio / default]:
        sets |= by_set(manifest, as_written=kind != "streaming")
    if args.reader:
        sets["reader, held-out sentences"] = reader.rows(args.reader, held_out=True)
    lookaheads = model.context(kind)[1] if args.lookaheads is None else args.lookaheads
    if kind == "prompt":
        prompted.table(asr, prompted.rows_of_people(sets), lookaheads)
    elif lookaheads or args.lookaheads is None:
        table(asr, sets, lookaheads)
    for seconds in args.long:
        print()
        long_table(asr, [row for rows in sets.values() for row in rows], seconds, args.pause, args.seed)


if __name__ == "__main__":
    main()
