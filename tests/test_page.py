"""report.html: what it shows, what it leaves out, and that nothing of a stranger's text becomes more than text."""

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
import tomllib
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
from markupsafe import Markup

from nemoport.cli import main
from nemoport.errors import ArtifactError
from nemoport.score import wer_interval
from nemoport.speech.corpus import Utterance
from nemoport.validate.details import read_details, write_details
from nemoport.validate.differing import differing
from nemoport.validate.gate_result import GateResult
from nemoport.validate.page import changes, charts, clips, page
from nemoport.validate.page.alignment import AROUND, LONGEST, SHOWN, aligned
from nemoport.validate.page.changes import read_figures
from nemoport.validate.page.costs import staircase
from nemoport.validate.page.intervals import rates
from nemoport.validate.page.page import FOLDER, PAGE, write_page
from nemoport.validate.page.rates import word_errors
from nemoport.validate.page.sources import Judged, read_judged
from nemoport.validate.result_store import results_path, write_results
from nemoport.validate.runs import UtteranceRun
from nemoport.words import Word

RATE_HZ = 16000
OK = GateResult("wer", "fp32", "0" * 64, "pass", measured=1.0, n=3, oracle_digest="1" * 64)


def figures(variant, wer=10.0, **more):
    """Results of a variant at two lookaheads."""
    found = [
        replace(OK, case="lookahead 6: WER", measured=wer, unit="%"),
        replace(OK, case="lookahead 6: NeMo's WER", measured=9.0, unit="%"),
        replace(OK, case="lookahead 0: WER", measured=wer + 2, unit="%"),
        replace(OK, case="all lookaheads: difference", measured=wer - 9, interval=(-1.0, 2.0), evidence="3 utterances, 0.1 min"),
        replace(OK, gate="longform", case="WER", measured=4.0),
        replace(OK, gate="cost", case="bytes", measured=4e6, unit="bytes"),
        replace(OK, gate="cost", case="speed", measured=20.0),
        replace(OK, gate="words", case="calibration error of confidence", measured=0.05),
        replace(OK, gate="words", case="right at confidence 0.9 to 1.0", measured=0.95),
    ]
    return [replace(one, variant=variant, **more) for one in found]


def texts(recording, own="a see", nemo="a c", language="", **more):
    word = {"text": own.split()[0] if own else "", "start": 0.0, "end": 0.4}
    words = [word, *({"text": text, "start": 0.5, "end": 0.9} for text in own.split()[1:])]
    return {
        "rate_hz": RATE_HZ,
        "languages": [language, "", ""],
        "words": [2, 3, 5],
        "runs": [
            {"lookahead": 6, "errors": [1, 0, 1], "nemo_errors": [0, 0, 1]},
            {"lookahead": 0, "errors": [1, 1, 1], "nemo_errors": [0, 0, 1]},
        ],
        "differing": 1,
        "recordings": [recording],
        "differences": [{"recording": 0, "lookahead": 6, "distance": 1, "nemo": nemo, "own": own, "words": words}],
    } | more


STREAM = {
    "lookahead": 6,
    "minutes": [{"number": n, "words": 60, "wer": 5.0 + n, "nemo": 5.0} for n in range(3)],
    "drift": [{"seconds": 10.0 * n, "ratio": 0.01 * n} for n in range(12)],
}


def recorded(folder, name="a.wav", seconds=1.0, **more):
    """An utterance with audio, as `Recording` has it."""
    samples = np.random.default_rng(0).integers(-9000, 9000, int(RATE_HZ * seconds)).astype(np.float32) / 32768
    soundfile.write(folder / "a.wav", samples, RATE_HZ, subtype="PCM_16")
    digest = hashlib.sha256(samples.tobytes()).hexdigest()
    times = {"offset_s": 0.0, "duration_s": 0.0, "seconds": seconds}
    return {"id": name, "language": "", "text": "a c", "path": str(folder / "a.wav"), "sha256": digest, **times} | more


def keep(build, name, gate, content):
    """Keeps what a gate of the variant's results has to keep."""
    path = results_path(build, name)
    judged = [r for r in read_judged(build) if r.name == name.removeprefix("extra-")][0].results
    write_details(path, [r for r in judged if r.gate == gate], content)


def build_in(folder):
    """A build with results of two variants, and all that their gates keep."""
    build = folder / "build"
    for name, wer in (("fp32", 10.0), ("int8-weight", 12.0)):
        write_results(results_path(build, name), figures(name, wer))
    for name in ("fp32", "int8-weight"):
        keep(build, name, "wer", texts(recorded(folder)))
        keep(build, name, "longform", STREAM)
    groups = [f"{layer}.{module}" for layer in range(2) for module in ("conv", "attn")]
    costs = {group: {"noise": 0.01 * (place + 1), "tokens": 0.0} for place, group in enumerate(groups)}
    (build / "sensitivity").mkdir()
    (build / "sensitivity" / "0.json").write_text(json.dumps({"inputs": {}, "costs": costs}))
    return build


@pytest.fixture
def built(tmp_path, monkeypatch):
    """The build, whose charts are not drawn: that takes a second."""

    def draw(found):
        for chart in found:
            chart.svg = Markup("<svg></svg>")
        return ""

    monkeypatch.setattr(page, "draw", draw)
    return build_in(tmp_path)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The page of such a build, with its charts."""
    return write_page(build_in(tmp_path_factory.mktemp("drawn")))


class Elements(HTMLParser):
    """Every element of a page with its attributes, the text of each kind, and all text that is shown."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self.open = [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        self.texts.setdefault(self.open[-1] if self.open else "", []).append(data)


@pytest.fixture
def read(drawn):
    return Elements(drawn.read_text())


def section(text, name):
    return text.partition(f'<section id="{name}">')[2].partition("</section>")[0]


SECTIONS = ("verdicts", "wer", "cost", "differences", "long", "drift", "confidence", "sensitivity", "figures-of")
CHARTED = {"wer": 3, "cost": 2, "long": 2, "drift": 1, "confidence": 1, "sensitivity": 1}


def test_every_section_has_its_charts_and_nothing_is_missing(drawn):
    text = drawn.read_text()
    assert {name: section(text, name).count("<svg") for name in SECTIONS} == dict.fromkeys(SECTIONS, 0) | CHARTED
    assert [m for m in re.findall(r'class="missing">([^<]*)', text) if "one language" not in m] == []
    assert "cannot be drawn" not in text


def test_a_page_needs_nothing_else(read):
    """Offline: links lead into the page, media are in it, and what would load has no place to load from."""
    for tag, attributes in read.elements:
        assert tag not in ("link", "iframe", "img", "object", "embed", "base", "form", "image", "use", "feimage"), tag
        assert attributes.get("href", "#").startswith("#") and attributes.get("xlink:href", "#").startswith("#")
        assert attributes.get("src", "data:audio/").startswith("data:audio/")
        assert (
            "srcset" not in attributes
            and "style" not in attributes
            and not [name for name in attributes if name.startswith("on")]
        )
        assert attributes.get("http-equiv", "Content-Security-Policy") == "Content-Security-Policy"
    assert not re.search(r"url\((?!#)|@import", "".join(read.texts["style"]))


def test_the_policy_allows_this_script_this_style_and_no_more(read):
    (policy,) = [a["content"] for tag, a in read.elements if a.get("http-equiv") == "Content-Security-Policy"]
    scripts = [tag_attributes.get("type") for tag, tag_attributes in read.elements if tag == "script"]
    assert scripts == ["application/json", None]
    _, script = read.texts["script"]
    (style,) = read.texts["style"]
    allowed = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in (style, script)]
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{allowed[0]}'; script-src 'sha256-{allowed[1]}'; media-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


HOSTILE = '</script><script>alert("{0}")</script><img src=x onerror=alert(1)> "\' onload=alert(2) {{{{ 7919*7919 }}}} {0}'
PLACES = (
    "transcript", "nemo", "own", "word", "file", "language", "evidence", "case", "unit", "variant", "layer", "module", "old",
    "build",
)  # fmt: skip


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    """A page in which each text that comes from outside tries to be more."""
    folder = tmp_path_factory.mktemp("attacked")
    says = {place: HOSTILE.format(place) for place in PLACES}
    says |= {place: says[place].replace("/", "\u2044") for place in ("variant", "build", "old")}  # names of files
    build = folder / says["build"]
    name = f"extra-{says['variant']}"
    results = figures(says["variant"], evidence=says["evidence"])
    results.append(replace(OK, case=f"language {says['language']}: difference", measured=1.0, interval=(0.0, 2.0)))
    results.append(replace(OK, case=says["case"], unit=says["unit"], status="fail", evidence=says["evidence"]))
    write_results(results_path(build, name), results)
    write_results(results_path(build, "fp32"), figures("fp32"))
    recording = recorded(folder, says["file"], language=says["language"], text=says["transcript"])
    keep(build, name, "wer", texts(recording, says["own"], says["nemo"], says["language"]))
    other = texts(recording, "x", "a", says["language"])
    other["differences"][0]["words"][0]["text"] = other["differences"][0]["own"] = says["word"].replace(" ", "\u00a0")
    keep(build, "fp32", "wer", other)
    keep(build, name, "longform", STREAM)
    (build / "sensitivity").mkdir()
    costs = {f"{says['layer']}.{says['module']}": {"noise": 0.1, "tokens": 0.0}}
    (build / "sensitivity" / "0.json").write_text(json.dumps({"inputs": {}, "costs": costs}))
    before = folder / says["old"]
    write_results(results_path(before, "extra-" + says["old"]), figures(says["old"]))
    return Elements(write_page(build, folder / PAGE, before).read_text()), says


@pytest.mark.parametrize("place", PLACES)
def test_a_text_from_outside_stays_a_text(attacked, place):
    found, says = attacked
    shown = "".join(text for tag, parts in found.texts.items() if tag != "script" for text in parts)
    shown += "".join(str(value) for _, attributes in found.elements for value in attributes.values())
    assert f"{place}" in shown and any(part in shown for part in ("alert", "onerror"))
    assert says[place].split()[-1] in shown
    scripts = [attributes for tag, attributes in found.elements if tag == "script"]
    assert [one.get("id") for one in scripts] == ["figures", None]
    assert "img" not in {tag for tag, _ in found.elements}
    assert not [name for _, attributes in found.elements for name in attributes if name.startswith("on")]
    assert "62710561" not in shown


def test_what_a_page_holds_for_later_ends_nowhere_early(attacked):
    found, says = attacked
    held = json.loads(found.texts["script"][0])
    assert set(held["variants"]) == {"fp32", says["variant"]}


def test_a_text_that_no_encoding_takes(built, tmp_path):
    keep(built, "fp32", "wer", texts(recorded(tmp_path, text="half \ud800 \x00 \u202e", id="\udcff")))
    assert ">?</span>" in write_page(built).read_text()


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium")
@pytest.mark.slow
def test_a_browser_runs_the_script_by_its_policy(drawn):
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    done = subprocess.run([*command, f"file://{drawn}"], capture_output=True, text=True, timeout=60, check=True)
    assert "Content Security Policy" not in done.stderr and "Uncaught" not in done.stderr
    assert re.search(r'<button type="button" id="theme">Theme: <span>automatic', done.stdout)


LACKING = {
    "wer": "the build does not hold the errors of each utterance",
    "differences": "The build does not hold the texts of any variant",
    "long": "The results hold no minutes",
    "drift": "The results hold no encoder frames",
    "sensitivity": "The build holds no sensitivities",
}


def test_a_build_of_an_earlier_version_has_a_page_that_says_what_it_lacks(built):
    shutil.rmtree(built / "results" / "details")
    shutil.rmtree(built / "sensitivity")
    text = write_page(built).read_text()
    for name, sentence in LACKING.items():
        assert sentence in section(text, name), name
    assert section(text, "wer").count("<svg") == 3  # figures without intervals


def test_results_without_cost_and_words(built):
    for name in ("fp32", "int8-weight"):
        write_results(results_path(built, name), [r for r in figures(name) if r.gate == "longform"])
    text = write_page(built).read_text()
    assert "The results hold no confidence" in section(text, "confidence")
    assert "No variant has both" in section(text, "cost")


def test_without_the_package_of_charts_the_tables_stay(built, monkeypatch):
    monkeypatch.setattr(page, "draw", charts.draw)
    monkeypatch.setattr(charts, "DRAWER", "import vl_convert_that_is_not_there")
    text = write_page(built).read_text()
    assert "No module named" in text and "vl_convert_that_is_not_there" in text and "<svg" not in text
    assert "11.00" in section(text, "cost")
    monkeypatch.setattr(charts, "DRAWER", "import time; time.sleep(9)")
    monkeypatch.setattr(charts, "SECONDS", 0.2)
    assert "TimeoutExpired" in write_page(built).read_text()


def test_figures_that_are_no_numbers_are_in_no_chart(built, monkeypatch):
    monkeypatch.setattr(page, "draw", charts.draw)
    monkeypatch.setattr(
        charts, "DRAWER", "import json, sys; json.dump({name: '<svg>' for name in json.load(sys.stdin)}, sys.stdout)"
    )
    results = [replace(r, measured=float("nan"), interval=(float("nan"), 1.0), status="fail") for r in figures("fp32")]
    results[3] = replace(results[3], measured=1.0)  # its interval is none
    write_results(results_path(built, "fp32"), results)
    text = write_page(built).read_text()
    assert "cannot be drawn" not in text and section(text, "wer").count("<svg") == 3
    assert '<td class="n">nan' in section(text, "figures-of")
    held = read_figures(built / "results" / PAGE)["variants"]["fp32"]["rows"]
    assert [row[3] for row in held].count(None) == 8


def test_a_failing_figure_has_its_limit_and_its_evidence(built):
    results = figures("fp32")
    results[0] = replace(results[0], status="fail", limit=8.5, evidence="ten words are lost")
    write_results(results_path(built, "fp32"), results)
    text = write_page(built).read_text()
    verdicts = section(text, "verdicts")
    assert "limit 8.5" in verdicts and "ten words are lost" in verdicts and "fail 1/4" in verdicts
    (target,) = re.findall(r'<td class="bad"><a href="#([^"]*)">', verdicts)
    assert f'id="{target}"' in section(text, "figures-of")
    assert "<strong>0</strong> of 2 variants pass" in text and '<span class="badge open">not run</span>' in verdicts
    write_results(results_path(built, "fp32"), [replace(results[1], oracle_digest="2" * 64)])
    assert "not all judged beside the same runs" in write_page(built).read_text()


# What gates keep.


def test_what_a_gate_kept_counts_as_long_as_its_results(built):
    path = results_path(built, "fp32")
    results = figures("fp32")
    assert read_details(path, "wer", results)["differing"] == 1
    for stamp in ("variant", "sha256", "limits_sha256", "oracle_digest", "judge_digest"):
        assert read_details(path, "wer", [replace(r, **{stamp: "f" * 64}) for r in results]) is None
    assert read_details(path, "wer", [r for r in results if r.gate != "wer"]) is None


DAMAGE = {
    "not JSON": lambda raw: "{",
    "another key": lambda raw: json.dumps(raw | {"more": 1}),
    "a negative count": lambda raw: json.dumps(raw | {"words": [-1]}),
    "a text for a number": lambda raw: json.dumps(raw | {"differing": "1"}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_said_and_the_page_is_written(built, damage):
    path = built / "results" / "details" / "fp32.wer.json"
    path.write_text(DAMAGE[damage](json.loads(path.read_text())))
    with pytest.raises(ArtifactError):
        read_details(results_path(built, "fp32"), "wer", figures("fp32"))
    assert "fp32.wer.json" in section(write_page(built).read_text(), "verdicts")


@pytest.mark.parametrize("changed", [{"recording": 7}, {"lookahead": None}])
def test_an_index_that_leads_nowhere_is_left_out(built, tmp_path, changed):
    kept = texts(recorded(tmp_path))
    kept["differences"][0] |= changed
    for name in ("fp32", "int8-weight"):
        keep(built, name, "wer", kept)
    assert ("<article" in write_page(built).read_text()) == ("recording" not in changed)


def test_lists_of_other_lengths_have_no_rates(tmp_path):
    assert rates(texts(recorded(tmp_path), words=[2, 3])) == [] and rates(texts(recorded(tmp_path), runs=[])) == []


def test_sensitivity_that_cannot_be_read(built):
    (built / "sensitivity" / "1.json").write_text('{"inputs": {}, "costs": {"0.conv": {"noise": -1.0, "tokens": 0.0}}}')
    text = section(write_page(built).read_text(), "sensitivity")
    assert "1.json" in text and text.count("<svg") == 1


def run_of(text, words=()):
    return UtteranceRun((), (), text, 0, np.zeros((0, 2)), "u", 10, tuple(words))


def test_the_most_different_runs_are_kept(monkeypatch):
    utterances = [Utterance(f"u{n}", Path("a.wav"), "a b c", 1.0, "0" * 64, RATE_HZ) for n in range(4)]
    nemo = [run_of("a b c")] * 4
    own = [run_of("a b c"), run_of("A b, c"), run_of("x y z", [Word("x", 0.1234567, 0.2, 1.0)]), run_of("a b")]
    found = differing(utterances, [(6, own, nemo), (None, own[:1] * 4, nemo)])
    assert found["differing"] == 3 and [d["distance"] for d in found["differences"]] == [3, 1, 0]
    assert [found["recordings"][d["recording"]]["id"] for d in found["differences"]] == ["u2", "u3", "u1"]
    assert found["differences"][0]["words"] == [{"text": "x", "start": 0.123, "end": 0.2}]
    monkeypatch.setattr("nemoport.validate.differing.DIFFERENCES", 1)
    assert [d["own"] for d in differing(utterances, [(6, own, nemo)])["differences"]] == ["x y z"]
    monkeypatch.setattr("nemoport.validate.differing.DIFFERENCES_CHARACTERS", 30)
    found = differing(utterances, [(6, own, nemo)])
    assert [d["own"] for d in found["differences"]] == ["x y z"] and found["differing"] == 3


# Figures of the page.


def test_rates_are_those_of_the_errors(tmp_path):
    kept = texts(recorded(tmp_path), languages=["en", "de", "de"])
    found = {(rate.language, rate.context): rate for rate in rates(kept)}
    assert {language for language, _ in found} == {"", "en", "de"} and len(found) == 9
    every, german = found["", "all lookaheads"], found["de", "lookahead 6"]
    assert (every.own.value, every.nemo.value, every.utterances) == (100 * 5 / 20, 100 * 2 / 20, 3)
    assert (german.own.value, german.utterances) == (100 / 8, 2)
    assert every.own == wer_interval(Counter([(2, 4), (1, 6), (2, 10)]), 1000)
    assert every.own.lower < every.own.value < every.own.upper


def test_charts_by_language_have_one_scale():
    rows = [(0, "en", 1.0, (-1.0, 2.0)), (0, "de", 0.5, (0.0, 4.0)), (1, "de", 3.0, None)]
    results = [
        replace(OK, variant=str(place), case=f"language {language}: difference", measured=value, interval=ends)
        for place, language, value, ends in rows
    ]
    judged = [Judged(place, str(place), (), tuple(r for r in results if r.variant == str(place))) for place in range(2)]
    found = word_errors(judged)["charts"]
    assert [chart.title.split()[0] for chart in found] == ["0", "1"]
    scales = [layer["encoding"]["x"]["scale"]["domain"] for chart in found for layer in chart.spec["layer"]]
    assert scales == [[-1.0, 4.0]] * len(scales)
    assert [row["row"] for row in found[1].spec["data"]["values"]] == ["de"]


@pytest.mark.parametrize(("more", "expected"), [(False, [(1, 9), (3, 4), (4, 2)]), (True, [(5, 4), (4, 2)])])
def test_the_line_of_what_nothing_betters(more, expected):
    points = [(4, 2), (3, 4), (5, 4), (1, 9), (3, 5)]
    assert staircase(points, more_is_better=more) == expected


def shown(reference, nemo, own, words=(), language=""):
    found = aligned(reference, nemo, own, words, language)
    return [tuple(unit.text if unit else "" for unit in (c.reference, c.nemo, c.own)) + (c.kind,) for c in found]


ALIGNED = {
    "a word that is wrong": (("a b", "a b", "a x"), [("a", "a", "a", "same"), ("b", "b", "x", "worse")]),
    "a word that is better": (("a b", "a x", "a b"), [("a", "a", "a", "same"), ("b", "x", "b", "better")]),
    "both wrong": (("b", "x", "y"), [("b", "x", "y", "other")]),
    "no transcript": (("", "x z", "y z"), [("", "x", "y", "other"), ("", "z", "z", "same")]),
    "lost": (("a b", "a b", "a"), [("a", "a", "a", "same"), ("b", "b", "", "worse")]),
    "added": (("a b", "a b", "a x b"), [("a", "a", "a", "same"), ("", "", "x", "worse"), ("b", "b", "b", "same")]),
    "only NeMo lost it": (("a b", "a", "a b"), [("a", "a", "a", "same"), ("b", "", "b", "better")]),
    "words that grew together": (
        ("a new keyboard", "a new key board", "anew keyboard"),
        [
            ("a", "a", "", "worse"),
            ("new", "new", "anew", "worse"),
            ("", "key", "", "better"),
            ("keyboard", "board", "keyboard", "better"),
        ],
    ),
    "case and marks": (("Yes, sir", "yes sir.", "YES Sir"), [("Yes,", "yes", "YES", "same"), ("sir", "sir.", "Sir", "same")]),
    "nothing at all": (("", "", ""), []),
    "only marks": (("", "-", "?"), [("", "-", "?", "same")]),
    "a mark that is lost": (
        ("a - b", "a b", "a - b"),
        [("a", "a", "a", "same"), ("-", "", "-", "same"), ("b", "b", "b", "same")],
    ),
    "tags": (("a", "a <de-DE>", "a <EOU> <fr-FR>"), [("a", "a", "a", "same")]),
}


@pytest.mark.parametrize("name", ALIGNED)
def test_words_stand_beside_each_other(name):
    given, expected = ALIGNED[name]
    assert shown(*given) == expected


def test_characters_of_a_language_without_spaces():
    assert shown("今日", "今日", "今 月", language="ja") == [("今", "今", "今", "same"), ("日", "日", "月", "worse")]


def test_words_have_times_where_they_spell_the_text():
    words = [{"text": "one", "start": 0.5, "end": 1.0}, {"text": "two.", "start": 1.0, "end": 1.5}]
    assert [(c.own.start, c.own.end) for c in aligned("", "one", "one two. <de-DE>", words)] == [(0.5, 1.0), (1.0, 1.5)]
    assert [c.own.start for c in aligned("", "one", "one three", words)] == [None, None]


def test_a_text_that_differs_in_nothing_that_is_scored_says_so(built, tmp_path):
    note = "Only case, punctuation, spaces or special tokens differ."
    assert note not in write_page(built).read_text()
    keep(built, "fp32", "wer", texts(recorded(tmp_path), "A, c <EOU>", "a c"))
    assert write_page(built).read_text().count(note) == 1


def test_of_a_long_text_what_differs_is_shown():
    text = [f"w{n}" for n in range(3 * SHOWN)]
    own = text[:700] + ["x"] + text[701:]
    found = aligned("", " ".join(text), " ".join(own), ())
    assert len(found) == 2 * AROUND + 1 and found[AROUND].own.text == "x" and found[0].left_out == 700 - AROUND
    every = aligned("", " ".join(text), " ".join("x" * len(text)), ())
    assert len(every) == SHOWN


def test_a_text_without_end_is_cut():
    long = "x" * 100_000
    (column,) = aligned(long, long, long + "y", ())
    assert len(column.own.text) == LONGEST + 1
    assert len(aligned("", "a " * 9000, "b " * 9000, ())) == SHOWN


# Audio.


def test_audio_is_what_was_judged(tmp_path):
    recording = recorded(tmp_path)
    uri, why = clips.Clips().of(recording, RATE_HZ)
    assert why == "" and uri.startswith("data:audio/ogg;base64,")
    samples, rate_hz = soundfile.read(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert rate_hz == RATE_HZ and len(samples) == pytest.approx(RATE_HZ, abs=700)
    assert clips.encoded(np.zeros(11025, np.float32), 11025)[0] == "audio/flac"


SILENT = {
    "has other audio": {"sha256": "0" * 64},
    "cannot be read": {"path": "/nowhere/a.wav"},
    "longer than": {"seconds": 1000.0},
}


@pytest.mark.parametrize("why", SILENT)
def test_why_there_is_no_audio(tmp_path, why):
    uri, reason = clips.Clips().of(recorded(tmp_path) | SILENT[why], RATE_HZ)
    assert uri == "" and why in reason


def test_what_a_page_holds_is_bounded(built, tmp_path, monkeypatch):
    """More utterances than are shown are named, and audio ends where its bytes end."""
    monkeypatch.setattr(clips, "MOST_BYTES", 10_000)
    monkeypatch.setattr("nemoport.validate.page.differences.CARDS", 5)
    monkeypatch.setattr("nemoport.validate.page.differences.NAMED", 2)
    recordings = [recorded(tmp_path, f"utterance {n}") for n in range(9)]
    many = [texts(recordings[0])["differences"][0] | {"recording": n, "distance": 20 - n} for n in range(9)]
    for name in ("fp32", "int8-weight"):
        keep(built, name, "wer", texts(recordings[0], recordings=recordings, differences=many, differing=9))
    text = write_page(built).read_text()
    assert text.count("<article") == 5 and 0 < text.count("<audio") < 5 and "No audio: the page holds at most" in text
    assert "4 more utterances differ" in text and "utterance 6" in text and "utterance 7" not in text and "And 2 more." in text
    (size,) = re.findall(r"([\d.]+) MB in all", text)
    assert float(size) == pytest.approx(len(text.encode()) / 1e6, abs=0.06)


def test_the_words_of_a_page_are_bounded(built, tmp_path, monkeypatch):
    recordings = [recorded(tmp_path, f"utterance {n}") for n in range(4)]
    many = [texts(recordings[0])["differences"][0] | {"recording": n, "distance": 9 - n} for n in range(4)]
    for name in ("fp32", "int8-weight"):
        keep(built, name, "wer", texts(recordings[0], recordings=recordings, differences=many, differing=4))
    monkeypatch.setattr("nemoport.validate.page.differences.COLUMNS", 5)  # each has two
    text = write_page(built).read_text()
    assert text.count("<article") == text.count("<audio") == 2 and "2 more utterances differ" in text


# What changed.


@pytest.mark.parametrize("form", ["page", "build"])
def test_what_changed_since(built, tmp_path, form):
    old = tmp_path / "old.html" if form == "page" else tmp_path / "old"
    if form == "page":
        write_page(built, old)
    else:
        shutil.copytree(built, old)
    now = figures("int8-weight", 12.0)
    now[0] = replace(now[0], measured=20.0, status="fail", limit=15.0)
    write_results(results_path(built, "int8-weight"), now)
    write_results(results_path(built, "fp16"), figures("fp16"))
    results_path(built, "fp32").unlink()
    text = section(write_page(built, against=old).read_text(), "changes")
    assert f"since {old.name}" in text and "New: fp16." in text and "Gone: fp32." in text
    assert 'int8-weight: <span class="badge open">not run</span> before, <span class="badge fail">fail</span> now' in text
    assert '<td class="n">12</td><td class="n">20</td>' in text and "8 figures are the same" in text
    assert text.index("badge fail") < text.index('<td class="n">12</td>') and "<details>" not in text


def test_a_report_may_be_compared_with_the_one_that_it_replaces(built):
    path = write_page(built)
    write_results(results_path(built, "fp32"), figures("fp32", 11.0))
    text = section(write_page(built, against=path).read_text(), "changes")
    assert '<td class="n">10</td><td class="n">11</td>' in text and "No verdict changed." in text
    write_results(results_path(built, "fp32"), figures("fp32", 11.0, oracle_digest="3" * 64))
    assert "comparable: fp32." in section(write_page(built, against=path).read_text(), "changes")


def test_figures_that_are_on_one_side_only(built):
    path = write_page(built)
    write_results(results_path(built, "fp32"), figures("fp32")[1:] + [replace(OK, gate="batch", case="new", measured=5.0)])
    text = section(write_page(built, against=path).read_text(), "changes")
    assert "17 figures are the same" in text and "2 figures changed and kept their verdict, or are on one side only" in text
    assert '<td class="n">10</td><td class="n">\u2013</td>' in text and '<td class="n">\u2013</td><td class="n">5</td>' in text


OLD = {
    "no page": "<html></html>",
    "no JSON": "{",
    "another form": '{"variants": {"a": {"verdict": 1}}}',
    "rows of another form": '{"variants": {"a": {"verdict": "", "oracle": "", "rows": [1]}}}',
}


@pytest.mark.parametrize("name", OLD)
def test_an_earlier_report_that_is_none(tmp_path, name):
    path = tmp_path / "old.html"
    path.write_text(OLD[name] if name == "no page" else f"{changes.FIGURES_TAG}{OLD[name]}</script>")
    with pytest.raises(ArtifactError, match=r"old\.html"):
        read_figures(path)


def test_the_largest_changes_come_first():
    """By how much of what it was; what was zero, or is a number on one side alone, before all others."""
    before = {"a": 10.0, "b": 10.0, "c": -4.0, "d": 0.0, "e": None, "f": 3.0}
    now = {"a": 11.0, "b": 13.0, "c": 4.0, "d": 0.1, "e": 1.0, "f": 3.0}
    rows = [[("wer", case, "", value, True) for case, value in one.items()] for one in (before, now)]
    held = [{"variants": {"fp32": {"verdict": "pass", "oracle": "", "rows": one}}} for one in rows]
    found = changes.changes(*held)
    assert [change.case for change in found["moved"]] == ["d", "e", "c", "b", "a"] and found["same"] == 1
    assert (found["turned"], found["verdicts"], found["new"], found["gone"], found["other_runs"]) == ([], [], [], [], [])


def test_an_earlier_report_of_just_the_most_bytes(built, monkeypatch):
    content = write_page(built).read_bytes().replace(b"<body>", b"<body>\xff")
    (built / "old.html").write_bytes(content)
    monkeypatch.setattr(changes, "MOST_JSON_BYTES", len(content))
    assert set(read_figures(built / "old.html")["variants"]) == {"fp32", "int8-weight"}
    monkeypatch.setattr(changes, "MOST_JSON_BYTES", len(content) - 1)
    with pytest.raises(ArtifactError, match="too large"):
        read_figures(built / "old.html")


def test_earlier_reports_that_are_not_there(tmp_path, monkeypatch):
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_figures(tmp_path / "none.html")
    monkeypatch.setattr(changes, "MOST_JSON_BYTES", 3)
    (tmp_path / "old.html").write_text("large")
    with pytest.raises(ArtifactError, match="too large"):
        read_figures(tmp_path / "old.html")


# The command.


def test_the_command_writes_the_page(built, tmp_path, capsys):
    assert main(["report", "--build", str(built)]) == 0
    assert capsys.readouterr().out.strip() == str(built / "results" / PAGE) and (built / "results" / PAGE).is_file()
    out = tmp_path / "else" / "page.html"
    assert main(["report", "--build", str(built), "--out", str(out), "--against", str(built)]) == 0 and out.is_file()
    assert main(["report", "--build", str(tmp_path)]) == 2
    assert "run `nemoport validate` first" in capsys.readouterr().err


def test_the_same_results_give_the_same_page(built):
    """A finished build can be on a disk that is read-only: what has its content already is not written."""
    path = write_page(built)
    content, inode = path.read_bytes(), path.stat().st_ino
    assert b"data:audio/ogg" in content
    assert write_page(built).read_bytes() == content and path.stat().st_ino == inode


def test_the_wheel_holds_what_the_page_is_made_of():
    packed = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    files = {path.name for path in FOLDER.iterdir() if path.is_file() and path.suffix != ".py"}
    assert set(packed["nemoport.validate.page"]) == files
