"""Telephone, noise and distance: what they do to audio, and what the gate must reject in it."""

from dataclasses import replace

import damage
import numpy as np
import pytest

from nemoport.speech.conditions import CONDITIONS, MOST_UTTERANCES, degraded, noisy, telephone
from nemoport.validate import gates, limits
from nemoport.validate.context import Context

RATE = 16000


@pytest.fixture(scope="module")
def folder(build, tmp_path_factory):
    return damage.copy_build(build, tmp_path_factory.mktemp("conditions") / "build")


@pytest.fixture
def context(folder, reference_checkpoint, eval_corpus, oracle):
    return Context(folder / "fp32", limits.limits_of("fp32"), reference_checkpoint, eval_corpus, oracle, threads=1)


def test_fp32_passes_and_noise_that_only_it_hears_does_not(context):
    results = gates.run_gate("conditions", context)
    assert [r.case for r in results][::2] == [f"{c}: difference" for c in CONDITIONS]
    assert all(r.passed for r in results)
    session = context.runner.session

    class Deaf:
        """Adds noise where the audio is far away: activations that quantization ranges were never fitted to."""

        def __getattr__(self, name):
            return getattr(session, name)

        def encode(self, mel, lengths, state):
            faint = mel.mean() < -14
            return session.encode(np.where(faint, np.roll(mel, 9, 1), mel).astype(np.float32), lengths, state)

    context.runner = replace(context.runner, session=Deaf())
    failed = {r.case for r in gates.run_gate("conditions", context) if not r.passed}
    assert "40 dB lower: token-exact" in failed and not any(case.startswith("noise") for case in failed)


def test_what_the_conditions_do():
    random = np.random.default_rng(0)
    tone = [0.3 * np.sin(2 * np.pi * hz * np.arange(RATE) / RATE).astype(np.float32) for hz in (100, 1000, 5000)]
    low, middle, high = (np.sqrt(np.mean(telephone(t, RATE, random) ** 2)) for t in tone)
    assert low < 0.01 and high < 0.01 and middle == pytest.approx(0.3 / np.sqrt(2), rel=0.03)
    added = noisy(10.0)(tone[1], RATE, random) - tone[1]
    assert 10 * np.log10(np.mean(tone[1] ** 2) / np.mean(added**2)) == pytest.approx(10.0, abs=0.2)


def test_made_once_from_some_of_the_corpus(eval_corpus, tmp_path):
    many = replace(eval_corpus, utterances=eval_corpus.utterances * 5)
    made = degraded("40 dB lower", many, tmp_path)
    assert len(made.utterances) <= MOST_UTTERANCES and {u.text for u in made.utterances} <= {u.text for u in many.utterances}
    stamp = made.utterances[0].path.stat().st_mtime_ns
    again = degraded("40 dB lower", many, tmp_path)
    assert again.digest == made.digest and again.utterances[0].path.stat().st_mtime_ns == stamp
    assert degraded("telephone", many, tmp_path).digest != made.digest
