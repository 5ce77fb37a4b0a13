"""The reference checkpoints with CTC heads: NeMo restores and runs each by its own classes, and they recognise speech."""

import json
from pathlib import Path

import jiwer
import pytest

from nemoport.reference import ctc, written

ROOT = Path(__file__).parent.parent
pytest.importorskip("nemo")


def rows_of(name, count):
    """Grammar clips of the evaluation speech of a variant."""
    manifest = ROOT / "reference/audio" / ("eval.jsonl" if "streaming" in name else "eval-tdt.jsonl")
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    rows = [row | {"audio_filepath": str(manifest.parent / row["audio_filepath"])} for row in rows]
    return [row for row in rows if row["set"].startswith("grammar") and row["duration"] > 2][:count]


def wer(asr, rows):
    found = [written.spoken(line) for line in ctc.texts(asr, rows, None)]
    return jiwer.wer([written.spoken(row["text"]) for row in rows], found)


@pytest.mark.parametrize("name", ctc.VARIANTS)
def test_nemo_restores_a_variant_and_recognises_speech_with_it(name, ctc_checkpoint):
    from nemo.collections.asr.models import EncDecCTCModelBPE, EncDecHybridRNNTCTCBPEModel

    from nemoport.reference import model

    asr, rows = model.restore(ctc_checkpoint(name)), rows_of(name, 12)
    hybrid = ctc.VARIANTS[name][2]
    assert type(asr) is (EncDecHybridRNNTCTCBPEModel if hybrid else EncDecCTCModelBPE)
    if hybrid:
        assert asr.cur_decoder == "rnnt" and wer(asr, rows) < 0.1
        asr.change_decoding_strategy(decoder_type="ctc", verbose=False)
    assert wer(asr, rows) < 0.4


def test_heads_are_small():
    assert ctc.HEADS.stat().st_size < 5_000_000
