"""Writes docs/consumers.md: consumers of other people on our packages, by kind of checkpoint and precision.

    python bench/consumers.py --work build/consumers [--clips 20] [--only parakeet.js] [--write docs/consumers.md]

Models, of the committed checkpoints: streaming-en; offline-tdt with a predictor of 640 units (reference/widen.py), as some
consumers have that size built in; ctc-offline. Recordings are spread over the evaluation sets. Each consumer runs in one thread,
by its own code, on its own features and then, where it takes them, on nemoport's. `make consumers` is this.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from consumer_runs import Case, Consumer, consumers, make_environments, nemoport
from node_programs import AbsentError, Transcripts, write_clips

from nemoport.export.build import export_checkpoint
from nemoport.export.checkpoint import read_checkpoint
from nemoport.files import folder_once
from nemoport.markdown import table
from nemoport.progress import silent
from nemoport.quantize import build_variant
from nemoport.recognizer import Recognizer
from nemoport.reference import ctc, widen
from nemoport.score import count_all, count_units, wer_percent
from nemoport.speech.corpus import Utterance, read_corpus
from nemoport.variant import FP32, instruction_set

ROOT = Path(__file__).resolve().parent.parent
AUDIO = ROOT / "reference" / "audio"
BEGIN, END = "<!-- matrix of consumers -->", "<!-- end of matrix of consumers -->"


@dataclass(frozen=True)
class Model:
    """speech: of the corpora's names; variants: besides fp32, in the nemo cache layout or in kv."""

    kind: str
    speech: str
    variants: tuple[str, ...]

    def checkpoint(self, folder: Path) -> Path:
        if self.kind == "streaming-rnnt":
            return ctc.CHECKPOINTS / "streaming-en.nemo"
        path = folder / f"{self.kind}.nemo"
        if not path.exists():
            widen.write("offline-tdt", path) if self.kind == "offline-tdt" else ctc.write("ctc-offline", path)
        return path

    def built(self, work: Path) -> Path:
        """The build with every variant, made once."""

        def fill(folder: Path) -> None:
            checkpoint = read_checkpoint(str(self.checkpoint(work)))
            for layout in ("nemo", "kv") if checkpoint.spec.streaming else ("nemo",):
                export_checkpoint(checkpoint, folder, layout)
            for variant in self.variants:
                if not variant.endswith(FP32):
                    build_variant(folder, variant, AUDIO / f"calibration{self.speech}.jsonl", progress=silent)

        folder_once(work / self.kind, fill)
        return work / self.kind


MODELS = (
    Model("streaming-rnnt", "", ("kv-fp32", "int8-weight")),
    Model("offline-tdt", "-tdt", ("int8-smoothquant",)),
    Model("offline-ctc", "-tdt", ("int8-weight",)),
)


def spread(utterances: Sequence[Utterance], count: int) -> list[Utterance]:
    return [utterances[i * len(utterances) // count] for i in range(min(count, len(utterances)))]


def other(ours: Transcripts, theirs: Transcripts) -> str:
    """Tokens other than ours, or words where the consumer gives no tokens."""
    counts = [
        count_units(" ".join(map(str, ours.tokens.get(i, []))), " ".join(map(str, theirs.tokens.get(i, []))))
        if theirs.tokens
        else count_units(ours.texts[i], theirs.texts[i])
        for i in ours.texts
    ]
    return f"{sum(c.errors for c in counts)} of {sum(c.words for c in counts)} {'tokens' if theirs.tokens else 'words'}"


def wer(found: Transcripts, utterances: Sequence[Utterance]) -> str:
    counts = count_all([u.text for u in utterances], [found.texts[u.id] for u in utterances], [u.language for u in utterances])
    return f"{wer_percent(counts):.1f}"


def rows_of(model: Model, chosen: Sequence[Consumer], work: Path, clips: int) -> list[list[str]]:
    build, rows = model.built(work), []
    utterances = spread(read_corpus(AUDIO / f"eval{model.speech}.jsonl", 16000).utterances, clips)
    for variant in (FP32, *model.variants):
        mine = [one for one in chosen if model.kind in one.kinds and one.runs(variant)]
        with tempfile.TemporaryDirectory() as scratch:
            written = write_clips(Recognizer.open(build / variant, threads=1), utterances, Path(scratch))
            case = Case(build, variant, utterances, Path(scratch), written, work.resolve())
            ours = nemoport(case) if mine else None
            rows += [row for one in mine if ours and (row := _row(one, model.kind, case, ours))]
    return rows


def _row(consumer: Consumer, kind: str, case: Case, ours: Transcripts) -> list[str]:
    print(consumer.name, kind, case.variant, file=sys.stderr, flush=True)
    title = [f"{consumer.name} {consumer.version}", f"`{kind}`", case.variant]
    try:
        own = consumer.transcribe(case, True)
        given = other(ours, consumer.transcribe(case, False)) if consumer.both_mels else ""
    except AbsentError as error:
        return [*title, f"not run: {error}", "", "", "", ""]
    speed = f"{ours.seconds / own.seconds:.2f}"
    return [*title, other(ours, own), given, wer(own, case.utterances), wer(ours, case.utterances), speed]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "consumers")
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--only", nargs="+", help="names of consumers, by default all")
    parser.add_argument("--write", type=Path, help="a page whose table is replaced")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    chosen = [one for one in consumers() if not options.only or one.name.split(" ")[0] in options.only]
    for reason in make_environments(options.work):
        print(f"not run: {reason}", file=sys.stderr)
    rows = [row for model in MODELS for row in rows_of(model, chosen, options.work, options.clips)]
    head = ("consumer", "kind", "variant", "other, its features", "other, our features", "WER", "nemoport's", "speed, nemoport 1")
    text = f"{instruction_set()}, one thread, {options.clips} recordings a kind.\n\n{table(head, rows)}"
    print(text)
    if options.write:
        page = options.write.read_text()
        before, after = page.partition(BEGIN)[0], page.partition(END)[2]
        options.write.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


if __name__ == "__main__":
    main()
