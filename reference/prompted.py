"""Error rates of a prompted model, run by NeMo: each language with its own prompt, with ``auto``, and with a wrong one.

Words are counted where words have spaces between them, characters in Japanese; both as ``languages.scored`` leaves them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from . import greedy, languages, markdown_table, prompt

PROMPTS = ("own", "auto", "wrong")


def name_of(rule: str, locale: str) -> str:
    """Prompt that a clip of ``locale`` is given under a rule of ``PROMPTS``; the wrong one is the next language of the list."""
    order = prompt.LANGUAGES
    return dict(own=locale, auto=prompt.AUTO, wrong=order[(order.index(locale) + 1) % len(order)])[rule]


def error_rate(references: list[str], found: list[str], locale: str) -> float:
    """Measures WER as a fraction, or CER where the language is written without spaces."""
    import jiwer

    language = languages.BY_LOCALE[locale]
    expected, emitted = ([languages.scored(line, language) for line in lines] for lines in (references, found))
    return jiwer.wer(expected, emitted) if language.joiner else jiwer.cer(expected, emitted)


def rate(asr: Any, rows: list[dict], lookahead: int, rule: str) -> tuple[float, float]:
    """Measures the error rate and the share of clips with the right tag, on rows of one language.

    A clip has the right tag if it ends in the tag of its language and holds no other.
    """
    locale = rows[0]["lang"]
    hypotheses = greedy.hypotheses(asr, rows, lookahead, name_of(rule, locale))
    tags = {asr.tokenizer.tokenizer.piece_to_id(tag): tag for tag in prompt.TAGS}
    tagged = 0
    for hypothesis in hypotheses:
        tokens = hypothesis.y_sequence.tolist()
        found = {tags[token] for token in tokens if token in tags}
        tagged += found == {f"<{locale}>"} and tags.get(tokens[-1]) is not None
    texts = [hypothesis.text for hypothesis in hypotheses]
    return error_rate([row["text"] for row in rows], texts, locale), tagged / len(rows)


def table(
    asr: Any,
    sets: dict[str, list[dict]],
    lookaheads: Sequence[int],
    show: Callable[[str], None] = print,
    prompts: tuple[str, ...] = PROMPTS,
) -> dict:
    """Prints a Markdown table in percent, a row for each set, which is of one language.

    Columns: the own prompt at every lookahead; at the first of them the other ``prompts``; then the share of clips with the
    right tag there, under each prompt. Returns {(set, prompt rule, lookahead): error rate as a fraction}.
    """
    first, others = lookaheads[0], [rule for rule in prompts if rule != "own"]
    columns = [f"own prompt, lookahead {right}" for right in lookaheads] + [f"{rule}, {first}" for rule in others]
    columns += [f"right tag: {rule}" for rule in ("own", *others)]
    show(markdown_table.head(["set", "clips", "minutes", "measure", *columns]))
    rates = {}
    for name, rows in sets.items():
        runs = [("own", right) for right in lookaheads] + [(rule, first) for rule in others]
        found = {(rule, right): rate(asr, rows, right, rule) for rule, right in runs}
        rates |= {(name, *run): errors for run, (errors, _) in found.items()}
        cells = [errors for errors, _ in found.values()] + [found[rule, first][1] for rule in ("own", *others)]
        minutes = sum(row["duration"] for row in rows) / 60
        measure = "WER" if languages.BY_LOCALE[rows[0]["lang"]].joiner else "CER"
        show(markdown_table.row([name, len(rows), f"{minutes:.1f}", measure, *map(markdown_table.percent, cells)]))
    return rates


def rows_of_people(sets: dict[str, list[dict]]) -> dict[str, list[dict]]:
    """Sets of the six languages, ``lang`` of each row made a locale (manifests of recordings have de for de-DE)."""
    by_code = {code: language.locale for code, language in languages.BY_CODE.items()} | {
        language.locale: language.locale for language in languages.LANGUAGES
    }
    return {
        name: [dict(row, lang=by_code[row["lang"]]) for row in rows]
        for name, rows in sets.items()
        if all(row["lang"] in by_code for row in rows)
    }
