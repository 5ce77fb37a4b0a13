"""Error rates of a prompted model by NeMo: each language with its own prompt, with ``auto``, and with a wrong one.

Words are counted where words have spaces between them, characters in Japanese; both as ``languages.scored`` leaves them.
"""
from __future__ import annotations

from collections.abc import Callable

from . import evaluate, languages, prompt

PROMPTS = ("own", "auto", "wrong")


def name_of(rule: str, locale: str) -> str:
    """The prompt that a clip of ``locale`` is given under a rule; the wrong one is the next language of the list."""
    order = prompt.LANGUAGES
    return dict(own=locale, auto=prompt.AUTO, wrong=order[(order.index(locale) + 1) % len(order)])[rule]


def error_rate(references: list[str], found: list[str], locale: str) -> float:
    """WER as a fraction, or CER where the language is written without spaces."""
    import jiwer

    language = languages.BY_LOCALE[locale]
    pairs = [[languages.scored(line, language) for line in lines] for lines in (references, found)]
    return (jiwer.wer if language.joiner else jiwer.cer)(*pairs)


def rate(asr, rows: list[dict], lookahead: int, rule: str) -> tuple[float, float]:
    """(error rate, share of clips that end in the tag of their language and hold no other), rows of one language."""
    locale = rows[0]["lang"]
    hypotheses = evaluate.hypotheses(asr, rows, lookahead, name_of(rule, locale))
    tags = {asr.tokenizer.tokenizer.piece_to_id(tag): tag for tag in prompt.TAGS}
    tagged = 0
    for hypothesis in hypotheses:
        tokens = hypothesis.y_sequence.tolist()
        found = {tags[token] for token in tokens if token in tags}
        tagged += found == {f"<{locale}>"} and tags.get(tokens[-1]) is not None
    texts = [hypothesis.text for hypothesis in hypotheses]
    return error_rate([row["text"] for row in rows], texts, locale), tagged / len(rows)


def table(asr, sets: dict[str, list[dict]], lookaheads: list[int], show: Callable[[str], None] = print,
          prompts: tuple[str, ...] = PROMPTS) -> dict:
    """Prints a Markdown table in percent; returns {(set, prompt rule, lookahead): error rate as a fraction}."""
    columns = [f"lookahead {right}" for right in lookaheads]
    show("| set | clips | minutes | measure | prompt | " + " | ".join(columns) + " | right tag |")
    show("|---|---|---|---|---|" + "---|" * (len(columns) + 1))
    rates = {}
    for name, rows in sets.items():
        minutes, spaced = sum(row["duration"] for row in rows) / 60, languages.BY_LOCALE[rows[0]["lang"]].joiner
        for rule in prompts:
            found = [rate(asr, rows, right, rule) for right in lookaheads]
            rates |= {(name, rule, right): errors for right, (errors, _) in zip(lookaheads, found, strict=True)}
            cells = [evaluate.percent(errors) for errors, _ in found] + [evaluate.percent(found[0][1])]
            show(f"| {name} | {len(rows)} | {minutes:.1f} | {'WER' if spaced else 'CER'} | "
                 f"{name_of(rule, rows[0]['lang'])} | " + " | ".join(cells) + " |")
    return rates


def rows_of_people(sets: dict[str, list[dict]]) -> dict[str, list[dict]]:
    """The sets of the six languages, ``lang`` of each row made a locale (manifests of recordings have de for de-DE)."""
    by_code = {code: language.locale for code, language in languages.BY_CODE.items()} | {
        language.locale: language.locale for language in languages.LANGUAGES}
    return {name: [dict(row, lang=by_code[row["lang"]]) for row in rows]
            for name, rows in sets.items() if all(row["lang"] in by_code for row in rows)}
