"""Long passes of an offline model beside their sections heard as short clips, and the memory that they take.

    python bench/long_pass.py --build BUILD --corpus MANIFEST [--minutes 6.5] [--further 4] [--variant fp32 ...]

A recording is evaluation speech joined with pauses (nemoport.validate.longform), so that every word is known. A section
is the utterances that begin within the same minute. Two rates for each: against the transcripts, and against what fp32
says of each utterance as a clip of its own, which is how quantized encoders of these models were shown to lose words on
long audio. --further makes so many recordings more with espeak-ng, of other held-out English and French sentences: a
section has about 65 words, so that two of them are three points. Each pass runs in a process of its own, whose peak memory
the kernel tells.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from pathlib import Path

from nemoport.artifact import Artifact
from nemoport.recognizer import Recognizer
from nemoport.reference import speech, written
from nemoport.score import count_all, wer_percent
from nemoport.speech.corpus import read_corpus
from nemoport.speech.longform import LongForm, make_longform
from nemoport.validate.probe import peak_bytes
from nemoport.variant import instruction_set

CLIPS = 40  # of a sentence each, in either language; and as many with unseen words as there are


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


def further(folder: Path, number: int) -> Path:
    """A manifest of more held-out clips than a pass holds, made once; English and French in turn."""
    path = folder / f"pass-{number}.jsonl"
    if not path.is_file():
        english, french = (speech.held_out_set(f"eval-pass-{number}-{code}", CLIPS, [], code) for code in ("en", "fr"))
        english = [dict(row, text=written.english(row["text"])) for row in english]
        folder.mkdir(parents=True, exist_ok=True)
        speech.write_set(folder, path.stem, [row for pair in zip(english, french, strict=False) for row in pair])
    return path


def in_a_process(*arguments) -> dict:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(hear, arguments)


Texts = list[list[str]]  # of each pass, of each of its segments


def sections(forms: list[LongForm]) -> dict[str, list[tuple[int, int]]]:
    """Section -> (pass, segment) of the utterances that begin in that minute of any pass, and all."""
    spoken = [(k, i) for k, form in enumerate(forms) for i, segment in enumerate(form.segments) if segment.text]
    found = {"all": spoken}
    for k, i in spoken:
        found.setdefault(f"{60 * int(forms[k].segments[i].start_s // 60)} s", []).append((k, i))
    return found


def rate(members: list[tuple[int, int]], texts: Texts, references: Texts) -> float:
    """WER in percent."""
    return wer_percent(count_all([references[k][i] for k, i in members], [texts[k][i] for k, i in members]))


def differences(forms: list[LongForm], texts: Texts, fp32: Texts, references: Texts) -> list[float]:
    """Of each section of each pass: points above fp32."""
    return [
        rate(members, [texts[k]], [references[k]]) - rate(members, [fp32[k]], [references[k]])
        for k, form in enumerate(forms)
        for section, members in sections([form]).items()
        if section != "all"
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=6.5)
    parser.add_argument("--further", type=int, default=0, help="passes over other speech, besides that over the corpus")
    parser.add_argument("--variant", action="append", dest="variants", help="repeat for several; default: all built, fp32 first")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    built = sorted(p.parent.name for p in options.build.glob("*/manifest.json"))
    variants = options.variants or ["fp32", *(v for v in built if v not in ("fp32", "smoothed"))]
    spec = Artifact.open(options.build / "fp32").spec
    manifests = [options.corpus, *(further(options.build / "further", number) for number in range(options.further))]
    corpora = [read_corpus(manifest, spec.frontend.sample_rate_hz) for manifest in manifests]
    forms = [make_longform(corpus, options.minutes, options.build) for corpus in corpora]
    heard = {}
    for variant in ["fp32", *(v for v in variants if v != "fp32")]:
        passes = zip(forms, corpora, strict=True)
        heard[variant] = [in_a_process(options.build / variant, f, list(c.utterances), options.threads) for f, c in passes]
        print(f"{variant}: done", file=sys.stderr, flush=True)

    def texts(variant: str, kind: str) -> Texts:
        return [one[kind] for one in heard[variant]]

    transcripts = [[segment.text for segment in form.segments] for form in forms]
    seconds = sum(form.corpus.seconds for form in forms)
    print(f"{len(forms)} passes, {seconds:.0f} s in all, {options.threads} threads; {instruction_set()}\n")
    for title, references in (("the transcripts", transcripts), ("fp32's text of each clip alone", texts("fp32", "alone"))):
        print(f"WER % against {title}:\n\n| section | {' | '.join(heard)} |\n|---|{'---|' * len(heard)}")
        for section, members in sections(forms).items():
            figures = (f"{rate(members, texts(variant, 'long'), references):.2f}" for variant in heard)
            print(f"| {section} | {' | '.join(figures)} |")
        print()
    judged = ("sections more than 2 points above fp32", "worst")
    head = ("variant", "MB", "clips alone, WER %", *judged, "loaded, MB", "peak, MB", "times real time")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for variant, passes in heard.items():
        size = sum(f.bytes for f in Artifact.open(options.build / variant).manifest.files.values())
        alone = rate(sections(forms)["all"], texts(variant, "alone"), transcripts)
        above = differences(forms, texts(variant, "long"), texts("fp32", "long"), transcripts)
        memory = f"{passes[0]['loaded_bytes'] / 1e6:.0f} | {max(one['peak_bytes'] for one in passes) / 1e6:.0f}"
        speed = seconds / sum(one["work_seconds"] for one in passes)
        over = f"{sum(points > 2 for points in above)} of {len(above)} | {max(above):+.1f}"
        print(f"| {variant} | {size / 1e6:.1f} | {alone:.2f} | {over} | {memory} | {speed:.1f} |")
    (options.build / "long_pass.json").write_text(json.dumps(heard))


if __name__ == "__main__":
    main()
