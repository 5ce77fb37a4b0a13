"""How far the confidence of words is from their share that is right, by each of NeMo's measures.

    python bench/confidence.py VARIANT CORPUS [--lookahead R] [--language L]

ECE: expected calibration error, over ten bins of equal width (Naeini et al. 2015): the mean distance between confidence and share
right, weighted by words. AUC: chance that a right word has a higher confidence than a wrong one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from nemoport.confidence import MEASURES
from nemoport.recognizer import Recognizer
from nemoport.speech.corpus import read_corpus
from nemoport.validate.calibration_error import expected_calibration_error, judged_words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variant", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--lookahead", type=int)
    parser.add_argument("--language")
    options = parser.parse_args()
    for measure in MEASURES:
        recognizer = Recognizer.open(options.variant, options.lookahead, language=options.language, confidence=measure)
        utterances = read_corpus(options.corpus, recognizer.sample_rate_hz).utterances
        found = {h.id: h for h in recognizer.transcribe([(u.id, u.samples()) for u in utterances])}
        judged = [
            pair
            for utterance in utterances
            for pair in judged_words(found[utterance.id].words, utterance.text, utterance.language)
        ]
        confidences, right = (np.array(column, float) for column in zip(*judged, strict=True))
        good, bad = confidences[right == 1], confidences[right == 0]
        auc = (good[:, None] > bad).mean() + (good[:, None] == bad).mean() / 2
        print(
            f"{measure:20} ECE {expected_calibration_error(judged):.3f}  AUC {auc:.3f}"
            f"  mean {confidences.mean():.3f}, right {right.mean():.3f}, {len(right)} words",
            flush=True,
        )


if __name__ == "__main__":
    main()
