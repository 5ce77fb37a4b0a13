"""More evaluation speech than is committed: held-out sentences in the held-out voices, made with espeak-ng.

69 utterances leave an interval of 0.4 WER points to either side of a difference that is to be shown to be at most 0.15.
Half are sentences of the grammar that training and calibration never had, half are ordinary prose, drawn anew; the
voices are the evaluation's. The same seed makes the same speech with the same espeak-ng.
"""

from __future__ import annotations

import json
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nemoport.reference import ordinary, speech, text, voices

SEED = "accuracy"
PADDED_S = 0.5


def available() -> bool:
    return shutil.which("espeak-ng") is not None


def make(folder: Path, count: int, parts: int, committed: Path) -> list[Path]:
    """Manifests part-<i>.jsonl of count / parts utterances each, made once. committed: a manifest whose sentences are
    left out."""
    manifests = [folder / f"part-{i}.jsonl" for i in range(parts)]
    if not all(m.is_file() for m in manifests):
        rows = spoken(count, {json.loads(line)["text"] for line in committed.read_text().splitlines()})
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(parts):
            speech.write_set(folder, f"part-{i}", rows[i::parts])
    return manifests


def spoken(count: int, taken: set[str]) -> list[dict]:
    """Rows as `nemoport.reference.speech.write_set` takes them."""
    rng, jobs = random.Random(SEED), []
    grammar = text.grammar_sentences(SEED, held_out=True)
    while len(jobs) < count:
        kind = ("grammar", "ordinary")[len(jobs) // 4 % 2]  # by fours: each part gets both kinds
        sentence = next(grammar) if kind == "grammar" else ordinary.sentence(rng)
        # The other half of the held-out grammar is the calibration's; see reference/speech.py.
        if sentence in taken or (kind == "grammar" and text.share_of(sentence, "set") >= 0.5):
            continue
        taken.add(sentence)
        jobs.append((len(jobs), sentence, kind, voices.draw(rng, "eval"), rng.random()))

    def row(job) -> dict:
        index, sentence, kind, voice, seed = job
        padded = speech.pad(speech.synthesise(sentence, voice), random.Random(seed), PADDED_S)
        samples = speech.with_noise_floor(padded, f"{SEED} {index}")
        return dict(samples=samples, text=sentence, voice=voice.name, set=kind)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(row, jobs))
