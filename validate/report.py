"""Writes the results for people and for CI: a table, report.md, junit.xml."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from nemoport import markdown
from nemoport.files import write_bytes
from nemoport.text import columns
from nemoport.validate.baseline import Baseline
from nemoport.validate.gate_result import GateResult
from nemoport.validate.limits import read_limits
from nemoport.validate.reliability_plot import PLOT, reliability_plot
from nemoport.validate.result_store import describe, read_results, results_path

ABSENT = "-"


def write_reports(build: Path, baselines: Sequence[Baseline]) -> None:
    """Writes build/results/report.md and junit.xml, of all variants that have results."""
    variants = judged_variants(build)
    results = {variant: read_results(results_path(build, variant)) for variant in variants}
    if plot := reliability_plot(results):
        write_bytes(build / "results" / PLOT, plot.encode())
    write_bytes(build / "results" / "report.md", _markdown(build, variants, baselines).encode())
    write_bytes(build / "results" / "junit.xml", junit(results))


def table(build: Path, variants: Sequence[str]) -> str:
    """Table with one line a variant, for the terminal."""
    return "\n".join(columns(_rows(build, variants)))


def summary_rows(build: Path, variants: Sequence[str]) -> list[tuple[str, ...]]:
    """Rows of a table for 80 columns, one a variant, below a head. WER: the least and the most of the lookaheads."""
    rows: list[tuple[str, ...]] = [("variant", "gates", "MB", "WER %", "above NeMo, 95 %", "x real time")]
    for variant in variants:
        found = read_results(results_path(build, variant))
        figure = {(r.gate, r.case): r for r in found if r.measured is not None}
        rows.append(
            (
                variant,
                _verdict(found),
                _show(figure.get(("cost", "bytes")), ".1f", 1e-6),
                _range([r.measured for (gate, case), r in figure.items() if gate == "wer" and case.endswith(": WER")]),
                _spread(figure.get(("wer", "all lookaheads: difference"))),
                _show(figure.get(("cost", "speed")), ".1f"),
            )
        )
    return rows


def by_language(build: Path, variants: Sequence[str]) -> list[tuple[str, ...]]:
    """Table rows, one a language and variant, below a head; none for a corpus in one language.

    The rates are WER, or CER for languages without spaces.
    """
    rows: list[tuple[str, ...]] = [("language", "variant", "rate", "NeMo's", "above NeMo (95 %)", "utterances")]
    for variant in variants:
        figure = {r.case: r for r in read_results(results_path(build, variant)) if r.gate == "wer"}
        for case, above in figure.items():
            if not (case.startswith("language ") and case.endswith(": difference")) or above.interval is None:
                continue
            own, nemo = (figure[case.replace("difference", name)] for name in ("rate", "NeMo's rate"))
            language = case.removeprefix("language ").removesuffix(": difference")
            rate = f"{own.measured:.2f} {own.unit}"
            rows.append((language, variant, rate, f"{nemo.measured:.2f} {nemo.unit}", _spread(above), str(above.n)))
    return [rows[0], *sorted(rows[1:], key=lambda row: row[0])] if len(rows) > 1 else []


def by_words(build: Path, variants: Sequence[str]) -> list[tuple[str, ...]]:
    """Table rows, one a variant, below a head; none where the gate `words` was not run."""
    rows: list[tuple[str, ...]] = [("variant", "on NeMo's frame %", "within a frame %", "calibration error")]
    for variant in variants:
        figure = {r.case: r for r in read_results(results_path(build, variant)) if r.gate == "words"}
        if "same time" in figure:
            shares = (_show(figure.get(case), ".2f", 100) for case in ("same time", "within a frame"))
            rows.append((variant, *shares, _show(figure.get("calibration error of confidence"), ".3f")))
    return rows if len(rows) > 1 else []


def junit(results: dict[str, list[GateResult]]) -> bytes:
    """JUnit XML: a test suite for each variant, a test case for each figure."""
    root = ElementTree.Element("testsuites")
    for variant, found in results.items():
        failures = sum(not r.passed for r in found)
        suite = ElementTree.SubElement(root, "testsuite", name=variant, tests=str(len(found)), failures=str(failures), errors="0")
        for result in found:
            name = f"{result.case or result.gate} ({result.unit})" if result.unit else result.case or result.gate
            case = ElementTree.SubElement(suite, "testcase", classname=f"{variant}.{result.gate}", name=name)
            if not result.passed:
                ElementTree.SubElement(case, "failure", message=_printable(describe(result)))
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def judged_variants(build: Path) -> list[str]:
    """Variants of gates.toml that have results, then artifacts that are built only for comparison."""
    known = [variant for variant in read_limits() if results_path(build, variant).is_file()]
    return known + sorted(path.stem for path in (build / "results").glob("extra-*.jsonl"))


def _rows(build: Path, variants: Sequence[str]) -> list[tuple[str, ...]]:
    results = {variant: read_results(results_path(build, variant)) for variant in variants}
    contexts = list(dict.fromkeys(c for rs in results.values() for r in rs if (c := _context(r))))
    head = ("variant", "gates", "MB", *(f"WER {c.removeprefix('lookahead ')}" for c in contexts), "above NeMo (95 %)")
    rows: list[tuple[str, ...]] = [(*head, "worst minute", "runs not exact", "tokens other", "x real time", "peak MB")]
    for found in results.values():
        figure = {(r.gate, r.case): r for r in found if r.measured is not None}
        rows.append(
            (
                found[0].variant if found else ABSENT,
                _verdict(found),
                _show(figure.get(("cost", "bytes")), ".1f", 1e-6),
                *(_show(figure.get(("wer", f"{c}: WER")), ".2f") for c in contexts),
                _spread(figure.get(("wer", "all lookaheads: difference"))),
                _show(figure.get(("longform", "worst minute above NeMo")), "+.1f"),
                _not_exact(figure.get(("tokens", "all"))),
                _show(figure.get(("tokens", "different")), ".0f"),
                _show(figure.get(("cost", "speed")), ".1f"),
                _show(figure.get(("cost", "peak memory")), ".0f", 1e-6),
            )
        )
    return rows


def _context(result: GateResult) -> str | None:
    """The context of a WER, such as "lookahead 6" or "full context"; None for any other figure."""
    return result.case.removesuffix(": WER") if result.gate == "wer" and result.case.endswith(": WER") else None


def _verdict(found: Sequence[GateResult]) -> str:
    failed = sorted({r.gate for r in found if not r.passed})
    return f"fail: {', '.join(failed)}" if failed else "pass" if found else "not run"


def _show(result: GateResult | None, form: str, scale: float = 1.0) -> str:
    return ABSENT if result is None or result.measured is None else format(scale * result.measured, form)


def _range(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return " to ".join(dict.fromkeys(f"{value:.1f}" for value in (min(known), max(known)))) if known else ABSENT


def _spread(result: GateResult | None) -> str:
    """A difference in WER points and its interval."""
    if result is None or result.measured is None or result.interval is None:
        return ABSENT
    return f"{result.measured:+.2f} ({result.interval[0]:+.2f} to {result.interval[1]:+.2f})"


def _not_exact(result: GateResult | None) -> str:
    """How many runs are not token-exact, from the share of those that are."""
    return ABSENT if result is None or result.measured is None else f"{round((1 - result.measured) * result.n)} of {result.n}"


def _markdown(build: Path, variants: Sequence[str], baselines: Sequence[Baseline]) -> str:
    head, *rows = _rows(build, variants)
    lines = ["# Gate results", "", markdown.table(head, rows), ""]
    lines += [
        "WER in percent at each lookahead, in encoder frames of right context. Above NeMo: WER points, all lookaheads "
        "pooled, paired bootstrap over utterances. Runs: an utterance at one lookahead by one flush rule, not exact if "
        "a token differs from NeMo's. Worst minute: of one long stream, WER points above NeMo's in the same minute. Speed "
        "and memory: one live stream, a process of its own.",
        "",
    ]
    if languages := by_language(build, variants):
        lines += ["## By language, all lookaheads pooled", "", markdown.table(languages[0], languages[1:]), ""]
    if words := by_words(build, variants):
        lines += [
            "## Words: times and confidence",
            "",
            markdown.table(words[0], words[1:]),
            "",
            "Times: share of the tokens that NeMo has too. Calibration error: mean distance between the confidence of words and "
            "the share of them that the transcript has, over ten bins.",
            "",
            f"![The share of words that are right, by their confidence]({PLOT})",
            "",
        ]
    if baselines:
        head = ("lookahead", "token-exact with NeMo's streaming", "... or with its offline run", "WER", "NeMo's WER")
        rows = [
            (
                str(b.lookahead),
                f"{b.token_exact} of {b.utterances}",
                f"{b.token_exact_either} of {b.utterances}",
                f"{b.wer_percent:.2f}",
                f"{b.oracle_wer_percent:.2f}",
            )
            for b in baselines
        ]
        lines += ["## The baseline: NeMo's own export(), nine zero frames first", "", markdown.table(head, rows), ""]
    failed = [(v, r) for v in variants for r in read_results(results_path(build, v)) if not r.passed]
    if failed:
        lines += ["## What failed", "", *(f"- {v}, {r.gate}: {describe(r)}" for v, r in failed), ""]
    return "\n".join(lines)
