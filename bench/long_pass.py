"""One long pass of an offline model beside its sections heard as short clips, and the memory that it takes.

    python bench/long_pass.py --build BUILD --corpus MANIFEST [--minutes 6.5] [--variant fp32 ...]

The recording is evaluation speech joined with pauses (nemoport.validate.longform), so that every word is known. A
section is the utterances that begin within the same minute. Two rates for each: against the transcripts, and against
what fp32 says of each utterance as a clip of its own, which is how quantized encoders of these models were shown to
lose words on long audio. Each variant runs in a process of its own, whose peak memory the kernel tells.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from pathlib import Path

from nemoport.artifact import Artifact
from nemoport.calibration.corpus import read_corpus
from nemoport.recognizer import Recognizer
from nemoport.validate.longform import LongForm, make_longform
from nemoport.validate.probe import peak_bytes
from nemoport.validate.score import count_all, wer_percent
from nemoport.variant import instruction_set


def hear(folder: Path, form: LongForm, clips: list, threads: int) -> dict:
    """One pass over the recording, and each utterance alone: texts by segment, seconds of work, peak bytes."""
    recognizer = Recognizer.open(folder, threads=threads, pass_s=float("inf"))
    before = peak_bytes()
    (recording,) = form.corpus.utterances
    passed = next(recognizer.transcribe([("", recording.samples())]))
    peak = peak_bytes()
    frames = [round(s / recognizer.session.spec.frame_seconds) for s in passed.token_seconds]
    parts = form.split(passed.tokens, frames, recognizer.session.spec.frame_seconds)
    alone = {u.text: next(recognizer.transcribe([("", u.samples())])).text for u in clips}
    return {
        "long": [recognizer.text(part) for part in parts],
        "alone": [alone.get(segment.text, "") for segment in form.segments],
        "work_seconds": passed.work_seconds,
        "loaded_bytes": before,
        "peak_bytes": peak,
    }


def in_a_process(*arguments) -> dict:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(hear, arguments)


def rates(form: LongForm, texts: list[str], references: list[str]) -> dict[str, float]:
    """Section -> WER in percent, and all."""
    spoken = [i for i, segment in enumerate(form.segments) if segment.text]
    sections: dict[str, list[int]] = {"all": spoken}
    for i in spoken:
        sections.setdefault(f"{60 * int(form.segments[i].start_s // 60)} s", []).append(i)
    return {
        name: wer_percent(count_all([references[i] for i in members], [texts[i] for i in members]))
        for name, members in sections.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=6.5)
    parser.add_argument("--variant", action="append", dest="variants", help="repeat for several; default: all built, fp32 first")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    built = sorted(p.parent.name for p in options.build.glob("*/manifest.json"))
    variants = options.variants or ["fp32", *(v for v in built if v not in ("fp32", "smoothed"))]
    spec = Artifact.open(options.build / "fp32").spec
    corpus = read_corpus(options.corpus, spec.frontend.sample_rate_hz)
    form = make_longform(corpus, options.minutes, options.build)
    heard = {}
    for variant in ["fp32", *(v for v in variants if v != "fp32")]:
        heard[variant] = in_a_process(options.build / variant, form, list(corpus.utterances), options.threads)
        print(f"{variant}: done", file=sys.stderr, flush=True)
    transcripts = [segment.text for segment in form.segments]
    seconds = form.corpus.seconds
    print(f"One pass of {seconds:.0f} s, {options.threads} threads; {instruction_set()}\n")
    for title, references in (("the transcripts", transcripts), ("fp32's text of each clip alone", heard["fp32"]["alone"])):
        rows = {variant: rates(form, one["long"], references) for variant, one in heard.items()}
        print(f"WER % against {title}:\n\n| section | {' | '.join(rows)} |\n|---|{'---|' * len(rows)}")
        for section in next(iter(rows.values())):
            print(f"| {section} | {' | '.join(f'{row[section]:.2f}' for row in rows.values())} |")
        print()
    alone = {variant: rates(form, one["alone"], transcripts)["all"] for variant, one in heard.items()}
    head = ("variant", "MB", "WER % of the clips alone", "loaded, MB", "peak of the pass, MB", "times real time")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for variant, one in heard.items():
        size = sum(f.bytes for f in Artifact.open(options.build / variant).manifest.files.values())
        memory = f"{one['loaded_bytes'] / 1e6:.0f} | {one['peak_bytes'] / 1e6:.0f}"
        print(f"| {variant} | {size / 1e6:.1f} | {alone[variant]:.2f} | {memory} | {seconds / one['work_seconds']:.1f} |")
    (options.build / "long_pass.json").write_text(json.dumps(heard))


if __name__ == "__main__":
    main()
