"""Each figure of each gate, alone, at both sides of its limit: from transcripts that are written down here, without a model."""

from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nemoport.artifact import Artifact, FileEntry, Manifest, Recipe
from nemoport.events import EventSpec
from nemoport.score import WordCounts, wer_difference
from nemoport.speech.conditions import CONDITIONS
from nemoport.speech.corpus import Corpus, Utterance
from nemoport.speech.longform import LongForm, Segment
from nemoport.validate import gates, limits
from nemoport.validate.context import Context
from nemoport.validate.details import read_details, write_details
from nemoport.validate.differing import differing
from nemoport.validate.gates import conditions, contract, cost, longform, structure, wer
from nemoport.validate.gates.longform import SegmentScores
from nemoport.validate.oracle import OFFLINE, STREAMING, Oracle, sample_positions
from nemoport.validate.probe import StreamCost
from nemoport.validate.runs import UtteranceRun
from nemoport.words import Word

SETTINGS = {("batch", "max_utterances"), ("longform", "minutes")}  # of how a gate measures; no figure is judged by them
VARIANT = "kv-int8-dynamic"  # it is judged by every gate
TEXT = "one two three four five six seven eight nine ten"
OTHER, FEWER, MORE = (TEXT.replace("five", word) for word in ("fife", "", "five five"))
COUNT = 40  # utterances, half of them in each of two languages
EIGHT = (0, 1, 2, 3, 4, 5, 20, 21)  # 6 of one language, 2 of the other
FULL, NEMO, FULL_0 = (6, "full"), (6, "nemo"), (0, "nemo")  # lookaheads and flush rules that NeMo has runs of


limits_of = cache(limits.limits_of)


def tokens(text):
    return tuple(int.from_bytes(word.encode(), "big") for word in text.split())


def said(text, where):
    return {i: {"text": " ".join(text.split()), "tokens": tokens(text)} for i in where}


def runs(changes=None, count=COUNT):
    """Runs of all utterances. changes: utterance -> fields that are other ones than those of the rest."""
    frames = np.ones((2, 3), np.float32)
    plain = [UtteranceRun(tokens(TEXT), tuple(range(10)), TEXT, 2, frames, f"u{i}", 10) for i in range(count)]
    return tuple(replace(run, **(changes or {}).get(i, {})) for i, run in enumerate(plain))


class Runner:
    """A CorpusRunner whose runs are written down: condition -> changes of its runs."""

    def __init__(self, changes):
        self.changes = changes

    def run(self, corpus, lookahead, streams):
        assert (lookahead, streams) == (6, 8)
        return {"full": runs(), "nemo": runs(self.changes.get(corpus.path.name))}


def context_of(checkpoint, own=None, nemo=None, count=COUNT, every=1, variant=VARIANT, languages=("en", "de")):
    """own, nemo: where they run -> changes of the runs. The places are (lookahead, flush rule) of the corpus's runs at 8
    streams, (lookahead, streams) of other runs, and conditions."""
    own, nemo = own or {}, nemo or {}
    events = EventSpec(end_of_utterance=tokens("ten")[0])
    spec = replace(checkpoint.spec, streaming=replace(checkpoint.spec.streaming, lookaheads=(6, 0)), events=events)
    spoken = [languages[i >= count // 2] for i in range(count)]
    rows = [Utterance(f"u{i}", Path(f"u{i}"), TEXT, 1.0, f"{i}", 16000, language) for i, language in enumerate(spoken)]
    places = [(STREAMING, 6, NEMO), (OFFLINE, 6, FULL), (STREAMING, 0, FULL_0)]
    records = {(mode, lookahead): runs(nemo.get(place), count) for mode, lookahead, place in places}
    entries = {"encoder": FileEntry("encoder_model.onnx", 300, "0" * 64)}
    recipe = Recipe(variant, "kv-fp32")
    manifest = Manifest(variant, recipe, recipe.digest, checkpoint.sha256, None, None, {}, "", entries)
    found = Context(
        Path("build") / variant,
        limits_of(variant),
        replace(checkpoint, spec=spec),
        Corpus(Path("corpus"), tuple(rows)),
        Oracle("", Path(), records),
    )
    found.sha256, found.artifact, found.runner = "", Artifact(found.folder, manifest, spec), Runner(own)
    for lookahead in spec.lookaheads:
        for streams in (1, 3, 8):
            by_rule = {rule: own.get((lookahead, rule)) if streams == 8 else None for rule in ("full", "nemo")}
            by_rule["full"] = own.get((lookahead, streams), by_rule["full"])
            found._runs[lookahead, streams, every] = {rule: runs(ch, count)[::every] for rule, ch in by_rule.items()}
    return found


def long_recording(own, nemo):
    """Three minutes of six utterances each, and two silences; own, nemo: segment -> its text."""
    texts = [TEXT] * 18 + [""] * 2
    form = LongForm(Corpus(Path(), ()), tuple(Segment(10.0 * i, text) for i, text in enumerate(texts)))
    transcribed = [[" ".join(changes.get(i, text).split()) for i, text in enumerate(texts)] for changes in (own, nemo)]
    return SegmentScores(form, *([tokens(text) for text in part] for part in transcribed), *transcribed)


@dataclass(frozen=True)
class Figure:
    """The figure that a gate must find in what the artifact (own) and NeMo hear, and the limit that it is judged by."""

    gate: str
    limit: str
    case: str
    measured: float
    own: dict = field(default_factory=dict)
    nemo: dict = field(default_factory=dict)
    unit: str | None = None  # where a case has two figures

    def __str__(self):
        return f"{self.gate}-{self.limit}-{self.case}-{self.measured:.3g}"


EIGHT_OTHER = {FULL: said(OTHER, EIGHT)}
LOUDER = {FULL: {3: {"sampled_frames": np.array([[1, 1, 1.5], [1, 1, 1]], np.float32)}}}
# 8 of 40 utterances have an error, so that of 40 drawn ones as many have it as a binomial distribution says: by
# scipy.stats.binom(40, 0.2).ppf at 0.025 and at 0.975 from 3 to 13 (the 90 % interval would be from 4 to 12).
LEAST, MOST = 3, 13
# One token by two frames, one by one.
MOVED = {3: {"token_frames": (0, 1, 2, 3, 6, 5, 6, 7, 8, 9)}, 4: {"token_frames": (1, 1, 2, 3, 4, 5, 6, 7, 8, 9)}}
NINE = tuple(range(9))
TWICE = {"tokens": tokens(TEXT + " ten"), "token_frames": (*range(10), 10)}
FIGURES = [
    Figure("contract", "max_problems", "", 2, own={"problems": ["a", "", "b", "", ""]}),
    Figure("structure", "max_float_products_a_layer", "float products of weights a layer", 2),
    Figure("structure", "min_integer_products_a_layer", "integer products a layer", 10),
    Figure("structure", "max_overflowing_pairs", "pairs of weights that 16 bits do not hold", 7),
    Figure("numeric", "max_abs", "lookahead 6, full", 0.5, LOUDER, unit="max abs"),
    Figure("numeric", "max_rms_ratio", "lookahead 6, full", (0.25 / 240) ** 0.5, LOUDER, unit="rms error / rms"),
    Figure("tokens", "min_exact_share_each", "lookahead 6, full", 0.8, EIGHT_OTHER),
    Figure("tokens", "min_exact_share_each", "lookahead 6, nemo", 0.8, {NEMO: said(OTHER, EIGHT)}),
    Figure("tokens", "min_exact_share", "all", 112 / 120, EIGHT_OTHER),
    Figure("tokens", "min_exact_share", "all", 119 / 120, {FULL: {3: {"text": OTHER}}}),  # as of permuted lines of tokens.txt
    Figure("tokens", "min_exact_share", "all", 118 / 120, {FULL: {i: {"tokens": tokens(OTHER)} for i in (1, 2)}}),
    Figure("tokens", "max_rate_change", "more or fewer", 5 / 1200, {FULL: said(FEWER, range(5))}),
    Figure("tokens", "max_rate_change", "more or fewer", 4 / 1200, {FULL: said(MORE, range(4))}),
    Figure("wer", "max_difference_points_each", "lookahead 6: difference", 2.0, EIGHT_OTHER),
    Figure("wer", "max_difference_points", "all lookaheads: difference", 1.0, EIGHT_OTHER),
    Figure("wer", "max_difference_points", "all lookaheads: difference", -1.0, nemo=EIGHT_OTHER),
    Figure("wer", "max_upper_end_points", "all lookaheads: upper end", MOST / 8, EIGHT_OTHER),
    Figure("wer", "max_upper_end_points", "all lookaheads: upper end", -LEAST / 8, nemo=EIGHT_OTHER),
    Figure("wer", "max_difference_points_many", "all lookaheads: difference", 1.0, EIGHT_OTHER),
    Figure("wer", "max_upper_end_points_many", "all lookaheads: upper end", MOST / 8, EIGHT_OTHER),
    Figure("wer", "max_difference_points_language", "language en: difference", 1.5, EIGHT_OTHER),
    Figure("wer", "max_empty", "lookahead 0: lost", 2, {FULL_0: said("", (3, 4))}),
    Figure("wer", "max_empty", "lookahead 0: lost", 2, {FULL_0: {i: {"text": " <EOU>"} for i in (3, 4)}}),
    Figure("boundary", "min_share", "lookahead 6, first word", 0.95, {FULL: said(TEXT.replace("one", ""), (3, 4))}),
    Figure("boundary", "min_share", "lookahead 6, first word", 0.975, {FULL: said(TEXT.replace("one", "won"), (5,))}),
    Figure("boundary", "min_share", "lookahead 6, last word", 0.925, {FULL: said(TEXT.replace("ten", "then"), (3, 4, 5))}),
    Figure("batch", "min_equal_share", "lookahead 6, 3 streams", 0.9, {(6, 3): said(OTHER, range(4))}),
    Figure("batch", "min_equal_share", "lookahead 0, 8 streams", 0.95, {(0, 8): said(OTHER, range(2))}),
    Figure("longform", "max_difference_points", "difference", 100 * 3 / 180, {6: OTHER, 7: OTHER, 8: FEWER}),
    Figure("longform", "max_difference_points", "difference", -100 * 2 / 180, nemo={6: OTHER, 7: OTHER}),
    Figure("longform", "max_worst_minute_points", "worst minute above NeMo", 5.0, {6: OTHER, 7: OTHER, 8: OTHER}, {0: OTHER}),
    Figure("longform", "max_stalls", "stalls", 1, {5: ""}, {6: "", 7: ""}),
    Figure("longform", "max_in_silence", "tokens in silence", 3, {18: "a b c"}, {19: "a b"}),
    Figure("longform", "max_in_silence", "tokens in silence", 2, {18: "a", 19: "a b"}, {18: "a b c"}),
    Figure("longform", "min_exact_share", "segments", 0.85, {6: OTHER, 7: OTHER, 8: OTHER}),
    *(
        Figure("conditions", "max_difference_points", f"{one}: difference", 1.0, {one: said(OTHER, range(4))})
        for one in CONDITIONS
    ),
    Figure(
        "conditions",
        "max_difference_points",
        "telephone: difference",
        0.5,
        {"telephone": said(OTHER, range(4))},
        {"telephone": said(OTHER, range(4, 6))},
    ),  # fmt: skip
    Figure("conditions", "min_exact_share", "telephone: token-exact", 0.9, {"telephone": said(OTHER, range(4))}),
    Figure("words", "min_same_time", "same time", 1198 / 1200, {FULL: MOVED}),
    Figure("words", "min_same_time", "same time", 1199 / 1200, {FULL: {3: {"token_frames": (0, 1, 2, 3, 3, 5, 6, 7, 8, 9)}}}),
    Figure("words", "min_within_a_frame", "within a frame", 1199 / 1200, {FULL: MOVED}),
    Figure(
        "words", "min_events", "events that NeMo has", 119 / 120, {FULL: {3: {"tokens": tokens(TEXT)[:9], "token_frames": NINE}}}
    ),
    Figure("words", "min_events", "events that NeMo has", 119 / 120, {FULL: {3: {"token_frames": (*NINE, 12)}}}),
    Figure("words", "min_events", "events that NeMo has", 1.0, {FULL: {3: {"token_frames": (*NINE, 11)}}}),
    Figure("words", "max_more_events", "events that NeMo has not", 2 / 120, {FULL: {3: TWICE, 4: TWICE}}),
    Figure("words", "max_more_events", "events that NeMo has not", 1 / 120, {FULL: {3: {"token_frames": (*NINE, 6)}}}),
    Figure("cost", "max_bytes_ratio", "bytes of fp32's", 0.3),
    Figure("cost", "min_tokens", "tokens", 5),
]


def judged(figure, checkpoint, monkeypatch, limit, threads=0):
    """The gate's results where the figure's limit is `limit`, and every other limit admits anything."""
    context = context_of(checkpoint, figure.own, figure.nemo)
    context.threads = threads
    others = {name for gate, name in known_limits() if gate == figure.gate}
    free = {name: 1e15 if name.startswith("max_") else -1e15 for name in others}
    context.limits = context.limits.override("batch", max_utterances=COUNT).override(figure.gate, **{**free, figure.limit: limit})
    sizes = {"kv-fp32": 1000, "fp32": 500}  # of the two, the one of the same cache layout is the measure
    fp32 = {name: SimpleNamespace(manifest=SimpleNamespace(files={"": FileEntry("", size, "")})) for name, size in sizes.items()}
    monkeypatch.setattr(cost, "Artifact", SimpleNamespace(open=lambda folder: fp32[folder.name]))
    monkeypatch.setattr(cost, "measure", lambda given: StreamCost(6, 1, 60.0, 2.0, 5, 10**8) if given is context else None)
    for check in ("_files", "_specs", "_languages", "_interfaces"):
        problems = figure.own.get("problems", []) if check == "_files" else []
        monkeypatch.setattr(contract, check, lambda given, problems=problems: problems if given is context else None)
    encoder = Path("build") / VARIANT / "encoder_model.onnx"
    products = {(encoder, "cpu"): (["f"] * 12, ["i"] * 60)}
    monkeypatch.setattr(structure, "products", lambda *where: products[where])
    monkeypatch.setattr(structure, "overflowing_pairs", lambda where: {encoder: {"a": 3, "b": 4}}[where])
    monkeypatch.setattr(wer, "MANY", COUNT if figure.limit.endswith("_many") else COUNT + 1)
    recording = long_recording(figure.own, figure.nemo)
    monkeypatch.setattr(longform, "transcribe_segments", lambda given, _: recording if given is context else None)
    degrade(monkeypatch, figure.nemo)
    return gates.run_gate(figure.gate, context)


def degrade(monkeypatch, nemo):
    """Conditions without audio, and NeMo's runs of them."""

    def degraded(name, corpus, build):
        assert (corpus.path, build) == (Path("corpus"), Path("build"))
        return replace(corpus, path=Path(name))

    def reference(self, corpus, lookahead):
        assert lookahead == 6
        return runs(nemo.get(corpus.path.name))

    monkeypatch.setattr(conditions, "degraded", degraded)
    monkeypatch.setattr(Context, "nemo_reference", reference)


@cache
def known_limits():
    every = {(gate, name) for one in limits.read_limits().values() for gate, table in one.gates.items() for name in table.values}
    return every - SETTINGS


def test_every_limit_of_gates_toml_has_a_figure_here():
    assert {(figure.gate, figure.limit) for figure in FIGURES} == known_limits()


@pytest.mark.parametrize("figure", FIGURES, ids=str)
def test_each_figure_alone_at_both_sides_of_its_limit(figure, reference_checkpoint, monkeypatch):
    hair = 1e-9 if figure.limit.startswith("max_") else -1e-9
    at = judged(figure, reference_checkpoint, monkeypatch, figure.measured + hair)
    (found,) = [r for r in at if r.case == figure.case and figure.unit in (None, r.unit)]
    assert found.measured == pytest.approx(figure.measured, abs=1e-10)
    assert [(r.case, r.evidence) for r in at if not r.passed] == []
    beyond = judged(figure, reference_checkpoint, monkeypatch, figure.measured - hair)
    assert [(r.case, r.unit) for r in beyond if not r.passed] == [(found.case, found.unit)]


@pytest.mark.parametrize("better", [False, True], ids=["worse", "better"])
def test_the_interval_is_the_95_percent_one_of_a_binomial_distribution(better):
    """Two conditions whose errors are on the same utterances are not twice the evidence of one."""
    right, wrong = WordCounts(10, 0, 0, 0), WordCounts(10, 0, 1, 0)
    changed = [[wrong if i in EIGHT else right] * 2 for i in range(COUNT)]
    plain = [[right] * 2 for _ in range(COUNT)]
    found = wer_difference(plain, changed) if better else wer_difference(changed, plain)
    ends = (-MOST / 4, -LEAST / 4) if better else (LEAST / 4, MOST / 4)
    assert (found.value, found.lower, found.upper) == (-2.0 if better else 2.0, *ends)


@pytest.mark.parametrize(("utterances", "failing"), [(8, []), (7, [8]), (3, [8]), (2, [3, 8])])
def test_fewer_utterances_than_streams_show_nothing_of_a_batch(reference_checkpoint, utterances, failing):
    results = gates.run_gate("batch", context_of(reference_checkpoint, count=utterances))
    assert {r.case: r.passed for r in results} == {
        f"lookahead {lookahead}, {streams} streams": streams not in failing for lookahead in (6, 0) for streams in (3, 8)
    }


@pytest.mark.parametrize(("most", "every"), [(1_000_000, 1), (40, 1), (20, 2), (8, 5)])
def test_a_batch_is_judged_on_so_many_utterances_as_its_limit_says(reference_checkpoint, most, every):
    context = context_of(reference_checkpoint, count=COUNT + 1, every=every)
    context.limits = context.limits.override("batch", max_utterances=most)
    results = gates.run_gate("batch", context)
    assert [(r.n, r.passed) for r in results] == [(COUNT // every + 1, True)] * 4


@pytest.mark.parametrize("variant", limits.read_limits())
def test_a_variant_is_compared_with_fp32_of_its_target_and_cache_layout(variant):
    found = limits.limits_of(variant)
    expected = "kv-fp32" if variant.startswith("kv-") else "fp32" if found.target == "onnxruntime" else f"{found.target}-fp32"
    assert found.fp32 == expected


LETTERS = len(TEXT.replace(" ", ""))


def test_languages_without_spaces_are_judged_by_characters(reference_checkpoint, monkeypatch):
    """In `wer`, each language in its own unit, and in `conditions`."""
    own = {FULL: said(OTHER, (0, 1, 20)), CONDITION: said(OTHER, range(4))}
    context = context_of(reference_checkpoint, own, languages=("ja", "de"))
    found = {r.case: r for r in gates.run_gate("wer", context)}
    rates = {case: (r.measured, r.unit, r.n) for case, r in found.items() if case.endswith(("rate", "WER"))}
    words = 20 * LETTERS + 20 * 10
    assert rates == {
        "lookahead 6: WER": (pytest.approx(100 * 3 / words), "%", 40),
        "lookahead 6: NeMo's WER": (0.0, "%", 40),
        "lookahead 0: WER": (0.0, "%", 40),
        "lookahead 0: NeMo's WER": (0.0, "%", 40),
        "language ja: rate": (pytest.approx(100 * 2 / (2 * 20 * LETTERS)), "% CER", 20),
        "language ja: NeMo's rate": (0.0, "% CER", 20),
        "language de: rate": (pytest.approx(100 * 1 / (2 * 20 * 10)), "% WER", 20),
        "language de: NeMo's rate": (0.0, "% WER", 20),
    }
    assert found["language ja: difference"].evidence == f"0.13 % CER, NeMo 0.00, on {20 * LETTERS} characters"
    assert found["language ja: difference"].measured == pytest.approx(100 * 2 / (2 * 20 * LETTERS))
    assert found["language de: difference"].measured == pytest.approx(100 * 1 / (2 * 20 * 10))
    degrade(monkeypatch, {})
    (difference,) = [r for r in gates.run_gate("conditions", context) if r.case == f"{CONDITION}: difference"]
    assert difference.measured == pytest.approx(100 * 4 / words)


CONDITION = next(iter(CONDITIONS))


def test_a_corpus_in_one_language_has_no_figures_of_languages(reference_checkpoint):
    found = gates.run_gate("wer", context_of(reference_checkpoint, languages=("de", "de")))
    assert not [r for r in found if "language" in r.case]
    assert {r.n for r in found} == {COUNT} and all(r.passed for r in found)


def test_every_figure_of_every_gate_says_of_what_it_is(reference_checkpoint, monkeypatch):
    """Cases, units and counts, where everything is NeMo's."""
    for gate, expected in SAYS.items():
        results = judged(
            Figure(gate, next(n for g, n in known_limits() if g == gate), "", 0, {"problems": ["", "", ""]}),
            reference_checkpoint,
            monkeypatch,
            0,
        )
        assert [(r.case, r.unit, r.n) for r in results] == expected
        assert {(r.gate, r.variant) for r in results} == {(gate, VARIANT)}


EXACT, POINTS, TOKENS = "share of utterances token-exact", "WER points", "share of utterances with the same tokens as alone"
SAYS = {
    "contract": [("", "problems", 3)],
    "structure": [
        ("float products of weights a layer", "nodes", 1),
        ("integer products a layer", "nodes", 1),
        ("pairs of weights that 16 bits do not hold", "pairs", 1),
    ],
    "numeric": [
        (case, unit, COUNT)
        for case in ("lookahead 6, full", "lookahead 6, nemo", "lookahead 0, nemo")
        for unit in ("max abs", "rms error / rms")
    ],
    "tokens": [
        *((case, EXACT, COUNT) for case in ("lookahead 6, full", "lookahead 6, nemo", "lookahead 0, nemo")),
        ("all", EXACT, 3 * COUNT),
        ("different", "tokens", 3 * COUNT),
        ("more or fewer", "share of NeMo's", 3 * COUNT),
    ],
    "wer": [
        *(
            (f"lookahead {r}: {case}", unit, COUNT)
            for r in (6, 0)
            for case, unit in (("difference", POINTS), ("WER", "%"), ("NeMo's WER", "%"), ("lost", "utterances without a word"))
        ),
        *(
            (f"language {one}: {case}", unit, COUNT // 2)
            for one in ("en", "de")
            for case, unit in (("difference", POINTS), ("rate", "% WER"), ("NeMo's rate", "% WER"))
        ),
        ("all lookaheads: difference", POINTS, COUNT),
        ("all lookaheads: upper end", POINTS, COUNT),
    ],
    "boundary": [
        (f"lookahead {r}, {word} word", "share of utterances whose word is NeMo's", COUNT)
        for r in (6, 0)
        for word in ("first", "last")
    ],
    "words": [
        ("same time", "share of tokens", 1200),
        ("within a frame", "share of tokens", 1200),
        ("events that NeMo has", "of NeMo's", 120),
        ("events that NeMo has not", "of NeMo's", 120),
    ],
    "batch": [(f"lookahead {r}, {n} streams", TOKENS, COUNT) for r in (6, 0) for n in (3, 8)],
    "longform": [
        ("WER", "%", 18),
        ("NeMo's WER", "%", 18),
        ("difference", POINTS, 18),
        ("worst minute above NeMo", POINTS, 18),
        ("stalls", "utterances without a word", 18),
        ("tokens in silence", "tokens more than NeMo's", 18),
        ("segments", "share of segments with NeMo's tokens", 18),
    ],
    "conditions": [
        (f"{one}: {case}", unit, COUNT) for one in CONDITIONS for case, unit in (("difference", POINTS), ("token-exact", EXACT))
    ],
    "cost": [
        ("bytes", "bytes", 1),
        ("bytes of fp32's", "ratio", 1),
        ("speed", "times real time", 1),
        ("peak memory", "bytes", 1),
        ("tokens", "tokens", 1),
    ],
}


def test_the_figures_of_cost(reference_checkpoint, monkeypatch):
    results = judged(Figure("cost", "min_tokens", "", 5), reference_checkpoint, monkeypatch, 5)
    assert {r.case: r.measured for r in results} == {
        "bytes": 300, "bytes of fp32's": 0.3, "speed": 30.0, "peak memory": 1e8, "tokens": 5,
    }  # fmt: skip
    assert "lookahead 6, 60 s of audio, one stream" in results[2].evidence and "its choice of threads" in results[2].evidence
    with_threads = judged(Figure("cost", "min_tokens", "", 5), reference_checkpoint, monkeypatch, 5, threads=3)
    assert "provider cpu, 3 threads" in with_threads[2].evidence


def minutes_of(*words, own=None):
    """A recording with one utterance of so many words in each minute; own: minute -> what the artifact finds in it."""
    texts = [" ".join(f"w{i}x{n}" for n in range(count)) for i, count in enumerate(words)]
    transcribed = [(own or {}).get(i, text) for i, text in enumerate(texts)]
    form = LongForm(Corpus(Path(), ()), tuple(Segment(60.0 * i, text) for i, text in enumerate(texts)))
    return SegmentScores(form, [tokens(t) for t in transcribed], [tokens(t) for t in texts], transcribed, texts)


@pytest.mark.parametrize(
    ("words", "lost", "number", "counted"),
    [
        ((50, 50, 50), 1, 1, 50),
        ((50, 49, 50), 1, 1, 99),  # with the minute behind it
        ((49, 1, 50), 0, 0, 50),
        ((50, 50, 49), 2, 1, 99),  # the last with the one before it
        ((50, 10, 10), 2, 0, 70),
        ((10,), 0, 0, 10),
        ((10, 20), 1, 0, 30),
        ((60, 70), 0, 0, 60),
    ],
)
def test_stretches_of_fifty_words_are_judged(words, lost, number, counted):
    worst = minutes_of(*words, own={lost: ""}).worst
    assert (worst.number, worst.words, worst.nemo) == (number, counted, 0.0)
    assert worst.above == worst.wer == pytest.approx(100 * words[lost] / counted)


def test_a_stall_is_silence_where_nemo_has_two_words():
    scores = minutes_of(1, 2, 3, own={0: "", 1: "", 2: "w2x0"})
    assert scores.stalls == [1]
    assert [(m.number, m.words, m.wer, m.nemo, m.above) for m in scores.minutes] == [
        (0, 1, 100.0, 0.0, 100.0), (1, 2, 100.0, 0.0, 100.0), (2, 3, pytest.approx(200 / 3), 0.0, pytest.approx(200 / 3)),
    ]  # fmt: skip
    assert scores.whole == longform.Minute(0, 6, pytest.approx(100 * 5 / 6), 0.0)
    assert scores.exact == 0.0


def test_long_recordings_in_languages_without_spaces_are_judged_by_characters():
    """Four minutes of two words each, of 30 letters, one of which is wrong in the last: two minutes have fifty."""
    text, other = "abcdefghij klmnopqrstuvwxyz1234", "abcdefghij klmnopqrstuvwxyz1235"
    form = LongForm(Corpus(Path(), ()), tuple(Segment(60.0 * i, text, "ja") for i in range(4)))
    scores = SegmentScores(form, [()] * 4, [()] * 4, [text] * 3 + [other], [text] * 4)
    assert scores.whole == longform.Minute(0, 120, pytest.approx(100 / 120), 0.0)
    assert scores.worst == longform.Minute(2, 60, pytest.approx(100 / 60), 0.0)


@pytest.mark.parametrize("special", ["\u2581<de-DE>", "<EOU>", "\u2581<EOB>"])
def test_long_recordings_are_run_alone_and_split(special):
    """Of an offline model several, one behind the other; what is spelled has no special tokens."""
    form = LongForm(Corpus(Path(), (UTTERANCE,)), (Segment(0.0, "a b"), Segment(2.0, "c", "de")))
    run = UtteranceRun((0, 1, 2, 3), (0, 10, 30, 40), "", 50, np.ones((len(sample_positions(50, 6)), 2)), "u", 10)
    asked = []

    class Runner:
        pieces = ["\u2581a", "\u2581b", "\u2581c", special]

        def run(self, corpus, lookahead, streams):
            asked.append((corpus, lookahead, streams))
            return {"nemo": (run,), "full": None}

    context = SimpleNamespace(lookaheads=(6, 0), runner=Runner(), reference_rule="nemo", spec=SimpleNamespace(frame_seconds=0.08))
    reference = replace(run, tokens=(0, 2), token_frames=(0, 40))
    context.longform = {6: [(form, reference), (form, run)]}.get
    found = longform.transcribe_segments(context, context.lookaheads[0])
    assert asked == [(form.corpus, 6, 1)] * 2
    assert found.form == LongForm.joined([form, form])
    assert (found.tokens, found.nemo_tokens) == ([(0, 1), (2, 3)] * 2, [(0,), (2,), (0, 1), (2, 3)])
    assert (found.texts, found.nemo_texts) == (["a b", "c"] * 2, ["a", "c", "a b", "c"])


UTTERANCE = Utterance("u", Path("u"), "a b c", 4.0, "0", 16000)


def spoken(confidences):
    """Words of TEXT with these confidences."""
    texts = TEXT.split()
    return tuple(Word(text, 0.0, 0.1, c) for text, c in zip(texts, confidences, strict=True))


def test_tokens_that_only_one_of_both_has_have_no_time(reference_checkpoint):
    """One utterance lost a token and another has one more: the ten others and nine of these keep their times."""
    fewer, more = said(FEWER, (0,))[0], said(MORE, (1,))[1]
    fewer["token_frames"], more["token_frames"] = (0, 1, 2, 3, 5, 6, 7, 8, 9), (0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 9)
    found = gates.run_gate("words", context_of(reference_checkpoint, {FULL: {0: fewer, 1: more}}))
    assert [(r.measured, r.n) for r in found if r.unit == "share of tokens"] == [(1.0, 1199)] * 2


def test_confidence_is_recorded_by_what_the_transcript_has(reference_checkpoint):
    """At lookahead 6 "five" is wrong in eight utterances, with a confidence of 0.25; the other words have 0.95, at both."""
    sure = spoken([0.95] * 10)
    unsure = tuple(replace(w, text="fife", confidence=0.25) if w.text == "five" else w for w in sure)
    own = {FULL: {i: {"words": unsure if i in EIGHT else sure} for i in range(COUNT)}, FULL_0: {0: {"words": sure}}}
    found = {r.case: r for r in gates.run_gate("words", context_of(reference_checkpoint, own)) if "conf" in r.case}
    right, n = 400 - 8 + 10, 400 + 10
    assert {case: (r.measured, r.n) for case, r in found.items() if case.startswith("right")} == {
        "right at confidence 0.2 to 0.3": (0.0, 8),
        "right at confidence 0.9 to 1.0": (1.0, right),
    }
    error = found["calibration error of confidence"]
    assert error.measured == pytest.approx((8 * 0.25 + right * 0.05) / n) and error.n == n and error.passed
    assert {(r.gate, r.limit) for r in found.values()} == {("words", None)}
    assert found["right at confidence 0.2 to 0.3"].evidence == "mean confidence 0.250"


def test_confidence_in_languages_without_spaces_is_that_of_characters(reference_checkpoint):
    own = {FULL: {i: {"words": spoken([0.95] * 10)} for i in (0, COUNT - 1)}}
    found = gates.run_gate("words", context_of(reference_checkpoint, own, languages=("ja", "de")))
    assert found[-1].case == "right at confidence 0.9 to 1.0" and (found[-1].measured, found[-1].n) == (1.0, LETTERS + 10)


def test_boundary_where_nemo_has_no_word(reference_checkpoint):
    silent = {place: said("", range(COUNT)) for place in (FULL, FULL_0)}
    found = gates.run_gate("boundary", context_of(reference_checkpoint, nemo=silent))
    assert [(r.case, r.n, r.passed) for r in found] == [
        (f"lookahead {r}, {word} word", 0, False) for r in (6, 0) for word in ("first", "last")
    ]
    assert all(np.isnan(r.measured) for r in found)


def test_tokens_where_nemo_emits_none(reference_checkpoint):
    """There is nothing to compare, so that nothing passes; at one lookahead alone, the others are compared."""
    every = {place: said("", range(COUNT)) for place in (FULL, NEMO, FULL_0)}
    found = gates.run_gate("tokens", context_of(reference_checkpoint, every, every))
    compared = {r.case: r for r in found if r.unit == EXACT}
    assert {(r.n, r.passed, np.isnan(r.measured)) for r in compared.values()} == {(0, False, True)}
    assert all(r.evidence.startswith("NeMo emitted no token in any") for r in compared.values())
    assert {r.case: (r.passed, r.n, r.evidence) for r in found if r.case in ("different", "more or fewer")} == {
        "different": (True, 3 * COUNT, "0 tokens, NeMo 0"),
        "more or fewer": (False, 3 * COUNT, "0 tokens, NeMo 0"),
    }
    one = {
        r.case: r.passed
        for r in gates.run_gate("tokens", context_of(reference_checkpoint, {NEMO: every[NEMO]}, {NEMO: every[NEMO]}))
    }
    assert [case for case, passed in one.items() if not passed] == ["lookahead 6, nemo"]


def test_the_evidence_of_tokens_quotes_three_utterances(reference_checkpoint):
    found = gates.run_gate("tokens", context_of(reference_checkpoint, {FULL: said(OTHER, EIGHT)}))
    quoted = "".join(f'; u{i} (10 ms packets): "{OTHER}", NeMo: "{TEXT}"' for i in EIGHT[:3])
    assert [r.evidence for r in found[:2]] == [f"8 of 40 differ{quoted}", "packets of 10 ms"]


def test_the_evidence_of_wer_says_of_how_many_words_it_is(reference_checkpoint):
    """At lookahead 6 the artifact has eight errors in 400 words, six of them in the 200 of English, and NeMo one, in German."""
    context = context_of(reference_checkpoint, EIGHT_OTHER, {FULL: said(OTHER, (30,))})
    found = {r.case: r.evidence for r in gates.run_gate("wer", context) if r.case.endswith(("difference", "upper end"))}
    whole = f"40 utterances, 0.7 min, each at 2 lookaheads; corpus {context.corpus.digest[:16]}"
    assert found == {
        "lookahead 6: difference": "2.00 % WER, NeMo 0.25 %, on 400 words",
        "lookahead 0: difference": "0.00 % WER, NeMo 0.00 %, on 400 words",
        "language en: difference": "1.50 % WER, NeMo 0.00, on 200 words",
        "language de: difference": "0.50 % WER, NeMo 0.25, on 200 words",
        "all lookaheads: difference": whole,
        "all lookaheads: upper end": whole,
    }


def test_many_utterances_are_judged_by_limits_of_their_own(reference_checkpoint, monkeypatch):
    assert wer.MANY == 3000
    monkeypatch.setattr(wer, "MANY", 5)
    context = context_of(reference_checkpoint)
    for count, ending in ((4, ""), (5, "_many")):
        rows = [[WordCounts(10, 0, 0, 0)]] * count
        found = [r.limit for r in wer._judge(context, "all", rows, rows, "", "")]
        assert found == [context.limits.get("wer", f"max_{name}_points{ending}") for name in ("difference", "upper_end")]


@pytest.mark.parametrize("variant", limits.read_limits())
def test_the_limits_of_many_utterances_are_no_wider(variant):
    values = limits.limits_of(variant).gates["wer"].values
    for name in ("max_difference_points", "max_upper_end_points"):
        assert values[f"{name}_many"] < values[name] or values[name] == 0


def test_the_figures_of_wer_have_their_interval(reference_checkpoint):
    found = {r.case: r for r in gates.run_gate("wer", context_of(reference_checkpoint, EIGHT_OTHER))}
    for case, share in (("lookahead 6: difference", 4), ("all lookaheads: difference", 8), ("all lookaheads: upper end", 8)):
        assert found[case].interval == (LEAST / share, MOST / share)
    assert found["lookahead 6: WER"].interval is None


def test_wer_keeps_the_errors_of_each_utterance(reference_checkpoint):
    context = context_of(reference_checkpoint, EIGHT_OTHER, {FULL_0: said(OTHER, (30,))})
    gates.run_gate("wer", context)
    kept = context.details["wer"]
    utterances, compared = context.corpus.utterances, context.compared_by_default_rule()
    assert kept == {
        "rate_hz": 16000,
        "languages": ["en"] * 20 + ["de"] * 20,
        "words": [10] * COUNT,
        "runs": [
            {"lookahead": 6, "errors": [int(i in EIGHT) for i in range(COUNT)], "nemo_errors": [0] * COUNT},
            {"lookahead": 0, "errors": [0] * COUNT, "nemo_errors": [int(i == 30) for i in range(COUNT)]},
        ],
        **differing(utterances, compared),
    }


def test_wer_keeps_words_where_there_is_one_lookahead_or_none(reference_checkpoint):
    corpus = Corpus(Path(), (Utterance("u", Path("u"), TEXT, 1.0, "0", 16000),))
    for compared, row, words in (([(6, runs(count=1), runs(count=1))], [WordCounts(10, 1, 0, 0)], 10), ([], [], 0)):
        context = SimpleNamespace(
            corpus=corpus, spec=reference_checkpoint.spec, compared_by_default_rule=lambda compared=compared: compared
        )
        kept = wer._texts(context, [row], [row])
        assert kept["words"] == [words] and [one["errors"] for one in kept["runs"]] == [[one.errors] for one in row]


def test_a_long_recording_keeps_its_minutes_and_how_far_frames_are(reference_checkpoint, monkeypatch):
    context = context_of(reference_checkpoint)
    recording = replace(long_recording({6: OTHER}, {}), drift=[{"seconds": 1.0, "ratio": 0.5}])
    monkeypatch.setattr(longform, "transcribe_segments", lambda given, _: recording if given is context else None)
    gates.run_gate("longform", context)
    assert context.details["longform"] == {
        "lookahead": 6,
        "minutes": [{"number": i, "words": 60, "wer": 100 / 60 * (i == 1), "nemo": 0.0} for i in range(3)],
        "drift": [{"seconds": 1.0, "ratio": 0.5}],
    }


def run_of_frames(*values, enc_frames=3):
    return UtteranceRun((), (), "", enc_frames, np.array(values, np.float32).reshape(-1, 2), "u", 10)


def test_frames_drift_by_their_distance_from_nemos():
    """Each frame that is kept by its own norm; none that is not finite, none of a frame of zeros, none of other counts."""
    nemo = run_of_frames(3, 4, 0, 0, 6, 8)
    own = run_of_frames(3, 4, 1, 1, 6, 5)
    assert sample_positions(3, None).tolist() == [0, 1, 2]
    assert longform.drift_of(own, nemo, None, 0.5, 60.0) == [{"seconds": 60.0, "ratio": 0.0}, {"seconds": 61.0, "ratio": 0.3}]
    broken = run_of_frames(3, np.nan, 0, 0, 6, 8)
    assert longform.drift_of(broken, nemo, None, 0.5, 0.0) == [{"seconds": 1.0, "ratio": 0.0}]
    assert longform.drift_of(run_of_frames(3, 4, 0, 0, 6, 8, enc_frames=4), nemo, None, 0.5, 0.0) == []


def test_drift_goes_on_from_the_minute_in_which_a_recording_begins():
    form = LongForm(Corpus(Path(), (replace(UTTERANCE, seconds=61.0),)), (Segment(0.0, "a"),))
    runs_of_both = {"nemo": (run_of_frames(3, 4, 0, 0, 6, 8),)}
    runner = SimpleNamespace(pieces=[], run=lambda *given: runs_of_both)
    context = SimpleNamespace(lookaheads=(None,), runner=runner, reference_rule="nemo", spec=SimpleNamespace(frame_seconds=0.5))
    context.longform = {None: [(form, run_of_frames(3, 4, 0, 0, 6, 4))] * 3}.get
    found = longform.transcribe_segments(context, context.lookaheads[0]).drift
    assert [one["seconds"] for one in found] == [0.0, 1.0, 120.0, 121.0, 240.0, 241.0]


def test_the_evidence_of_a_long_recording_names_minutes_and_stalls(reference_checkpoint, monkeypatch):
    own = {5: "", 7: "", 8: "", 12: "", 13: OTHER}
    found = judged(Figure("longform", "max_stalls", "", 0, own, {6: OTHER}), reference_checkpoint, monkeypatch, 0)
    evidence = {r.case: r.evidence for r in found}
    assert evidence.pop("worst minute above NeMo") == "minute 1, 60 words: 33.3 %, NeMo 1.7 %"
    assert evidence.pop("stalls") == "; ".join(f"at {10 * i} s: {TEXT}" for i in (5, 7, 8))
    assert set(evidence.values()) == {"lookahead 6, 0.0 min, one stream"}


def test_times_say_how_far_the_furthest_token_is_and_where_none_is_common_nothing_passes(reference_checkpoint):
    found = gates.run_gate("words", context_of(reference_checkpoint, {FULL: MOVED}))
    evidence = {r.evidence for r in found if r.unit == "share of tokens"}
    assert evidence == {"of 1200 tokens that NeMo has too, the furthest by 2 encoder frames"}
    silent = dict.fromkeys(range(COUNT), {"text": "", "tokens": (), "token_frames": ()})
    results = gates.run_gate("words", context_of(reference_checkpoint, dict.fromkeys((FULL, NEMO, FULL_0), silent)))
    found = [r for r in results if r.unit == "share of tokens"]
    assert [(r.case, r.n, r.passed, np.isnan(r.measured)) for r in found] == [
        (case, 0, False, True) for case in ("same time", "within a frame")
    ]
    assert {r.evidence for r in found} == {"of 0 tokens that NeMo has too, the furthest by 0 encoder frames"}


# What gates keep for the page.


def kept_by(gate, context, folder):
    """What the gate keeps, as it is read."""
    results = gates.run_gate(gate, context)
    write_details(folder / "fp32.jsonl", results, context.details[gate])
    return read_details(folder / "fp32.jsonl", gate, results)


def test_the_gate_wer_keeps_errors_and_texts_that_differ(reference_checkpoint, tmp_path):
    own = {FULL: {3: {"text": OTHER, "words": spoken([0.5] * 10)}}, FULL_0: {3: {"text": OTHER}, 30: {"text": TEXT.upper()}}}
    kept = kept_by("wer", context_of(reference_checkpoint, own), tmp_path)
    assert (kept["rate_hz"], kept["languages"][::20], kept["words"]) == (16000, ["en", "de"], [10] * COUNT)
    assert [(run["lookahead"], sum(run["errors"]), sum(run["nemo_errors"])) for run in kept["runs"]] == [(6, 1, 0), (0, 1, 0)]
    assert kept["runs"][0]["errors"][3] == 1 and kept["differing"] == 3
    found = [(kept["recordings"][d["recording"]]["id"], d["lookahead"], d["distance"], d["own"]) for d in kept["differences"]]
    assert found == [("u3", 6, 1, OTHER), ("u3", 0, 1, OTHER), ("u30", 0, 0, TEXT.upper())]
    assert [len(d["words"]) for d in kept["differences"]] == [10, 0, 0]
    assert kept["recordings"][0]["sha256"] == "3" and Path(kept["recordings"][0]["path"]).is_absolute()


def test_the_gate_longform_keeps_minutes_and_the_drift_of_frames(reference_checkpoint, monkeypatch, tmp_path):
    frames = np.ones((len(sample_positions(100, 6)), 3), np.float32)
    reference = UtteranceRun((), (), "", 100, frames, "u", 10)
    run = replace(reference, sampled_frames=frames * [[1.0, 1.0, 1.3]])
    drift = longform.drift_of(run, reference, 6, 0.08, 60.0)
    assert [at["seconds"] for at in drift] == [60.0 + 0.08 * at for at in sample_positions(100, 6)]
    assert {round(at["ratio"], 6) for at in drift} == {round(0.3 / 3**0.5, 6)}
    assert longform.drift_of(replace(run, enc_frames=99), reference, 6, 0.08, 0.0) == []
    assert longform.drift_of(run, replace(reference, sampled_frames=frames * 0), 6, 0.08, 0.0) == []
    assert longform.drift_of(replace(run, sampled_frames=frames * np.nan), reference, 6, 0.08, 0.0) == []
    scores = replace(long_recording({6: OTHER}, {}), drift=drift)
    monkeypatch.setattr(longform, "transcribe_segments", lambda context, _: scores)
    kept = kept_by("longform", context_of(reference_checkpoint), tmp_path)
    assert kept["lookahead"] == 6 and kept["drift"] == drift
    assert [(m["number"], m["words"], m["nemo"]) for m in kept["minutes"]] == [(0, 60, 0.0), (1, 60, 0.0), (2, 60, 0.0)]
    assert [m["wer"] > 0 for m in kept["minutes"]] == [False, True, False]


def test_events_are_judged_of_a_model_that_marks_them_and_shares_where_nemo_has_some(reference_checkpoint):
    def cases(events, nemo):
        context = context_of(reference_checkpoint, nemo={FULL: nemo, NEMO: nemo, FULL_0: nemo})
        context.checkpoint = replace(context.checkpoint, spec=replace(context.spec, events=events))
        return {r.case: (r.measured, r.evidence) for r in gates.run_gate("words", context) if "events" in r.case}

    none = {i: {"tokens": tokens(TEXT)[:9], "token_frames": NINE} for i in range(COUNT)}
    ends = EventSpec(end_of_utterance=tokens("ten")[0])
    assert cases(None, {}) == {} and len(cases(ends, {})) == 2
    assert cases(ends, none) == {"events that NeMo has not": (120.0, "NeMo has 0 events, the artifact 120, 0 of them NeMo's")}
    assert cases(EventSpec(end_of_backchannel=7), {}) == {
        "events that NeMo has not": (0.0, "NeMo has 0 events, the artifact 0, 0 of them NeMo's")
    }
