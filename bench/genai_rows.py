"""onnxruntime-genai on our layout: whether its tokens are nemoport's on the same feature rows, and what its front end costs.

    python bench/genai_rows.py --build BUILD --work build/genai --corpus MANIFEST [--variant NAME]... [--lookahead 6]...
        [--language en-US] [--limit 20]

WORK is filled by `bench/peers/genai.py` (`make genai`). A row of a table for each variant and lookahead: utterances whose tokens
are nemoport's on the same rows, and whose texts are its own of the same audio (without silence around it, and with the
example's); WER of nemoport, and of genai without silence and with it, each with the difference from nemoport and its 95 %
interval; processor seconds of genai over nemoport's. Exit code 1 where a token differs on the same rows.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nemoport.artifact import Artifact
from nemoport.decode import GreedyState, greedy
from nemoport.recognizer import Recognizer
from nemoport.score import count_all, normalise, wer_difference, wer_percent
from nemoport.speech.corpus import read_corpus

HERE = Path(__file__).parent
sys.path.append(str(HERE / "peers"))
from laid_out import lay_out  # noqa: E402

HEAD = (
    "variant",
    "lookahead",
    "same tokens on the same rows",
    "same texts",
    "WER, nemoport",
    "WER, genai",
    "with silence",
    "processor time",
)


@dataclass(frozen=True)
class Transcript:
    tokens: list[int]
    text: str
    seconds: float


def transcribed(
    python: Path, folder: Path, paths: list[str], rows: Path | None, slot: int | None, padded: bool
) -> list[Transcript]:
    """Transcribes recordings by genai, in its own environment."""
    command = [python, HERE / "peers" / "genai_transcribe.py", folder, *(["--padded"] if padded else [])]
    command += ["--rows", rows] if rows else []
    command += [] if slot is None else ["--language", str(slot)]
    found = subprocess.run(command, input="\n".join(paths), stdout=subprocess.PIPE, text=True, check=True).stdout
    answers = [json.loads(line) for line in found.splitlines()]
    return [Transcript(one["tokens"], one["text"].strip(), one["seconds"]) for one in answers]


def tokens_of(ours: Recognizer, rows: np.ndarray, slot: int | None) -> list[int]:
    """Decodes genai's feature rows by nemoport's session."""
    session = ours.session
    state = session.initial_state(1, [] if slot is None else [slot])
    decoded = [GreedyState.initial(session.spec.decoding)]
    for window in (row.T[None] for row in rows) if session.spec.streaming else [rows]:
        window = np.ascontiguousarray(window)
        frames, lengths, state = session.encode(window, np.array([window.shape[2]]), state)
        greedy(session, frames, lengths, decoded)
    return list(decoded[0].tokens)


def row(options: argparse.Namespace, variant: str, lookahead: int | None) -> tuple[str, ...]:
    ours = Recognizer.open(options.build / variant, lookahead=lookahead, language=options.language, threads=1)
    spec = ours.session.spec
    slot = spec.prompt.slot(options.language) if spec.prompt else None
    rows_of_language = [u for u in options.corpus.utterances if not options.language or u.language == options.language]
    utterances = rows_of_language[: options.limit]
    texts, paths = [u.text for u in utterances], [str(u.path) for u in utterances]
    with tempfile.TemporaryDirectory() as folder:
        package, rows = Path(folder) / "package", Path(folder) / "rows"
        rows.mkdir()
        lay_out("genai", options.build, [variant], package, lookahead)
        python = options.work / "venv" / "bin" / "python"
        plain = transcribed(python, package / variant, paths, rows, slot, False)
        padded = transcribed(python, package / variant, paths, None, slot, True) if spec.streaming else None
        same = sum(one.tokens == tokens_of(ours, np.load(rows / f"{i}.npy"), slot) for i, one in enumerate(plain))
    both = [plain] if padded is None else [plain, padded]
    started = time.process_time()
    own = [one.text for one in ours.transcribe([(u.id, u.samples()) for u in utterances])]
    seconds = time.process_time() - started
    options.failed |= same < len(plain)
    counts = count_all(texts, own)

    def cost(found: list[Transcript] | None) -> str:
        if found is None:
            return ""
        theirs = count_all(texts, [one.text for one in found])
        between = wer_difference([[one] for one in theirs], [[one] for one in counts])
        return f"{wer_percent(theirs):.1f} ({between.value:+.1f}, {between.lower:+.1f} to {between.upper:+.1f})"

    ratio = sum(one.seconds for one in plain) / seconds
    alike = [sum(normalise(one.text) == normalise(text) for one, text in zip(found, own, strict=True)) for found in both]
    mine = f"{wer_percent(counts):.1f}"
    shown = "" if lookahead is None else str(lookahead)
    return variant, shown, f"{same} of {len(plain)}", " / ".join(map(str, alike)), mine, cost(plain), cost(padded), f"{ratio:.2f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--variant", action="append", dest="variants", help="repeat for several; default: fp32")
    parser.add_argument("--lookahead", type=int, action="append", dest="lookaheads", help="repeat; default: the model's")
    parser.add_argument("--language", help="of a prompted model: its utterances are taken")
    parser.add_argument("--limit", type=int)
    options = parser.parse_args()
    options.failed = False
    variants = options.variants or ["fp32"]
    rate = Artifact.open(options.build / variants[0]).spec.frontend.sample_rate_hz
    options.corpus = read_corpus(options.corpus, rate)
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for variant in variants:
        for lookahead in options.lookaheads or [None]:
            print(f"| {' | '.join(row(options, variant, lookahead))} |", flush=True)
    return int(options.failed)


if __name__ == "__main__":
    sys.exit(main())
