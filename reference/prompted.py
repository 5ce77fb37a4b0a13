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


def table(
    asr,
    sets: dict[str, list[dict]],
    lookaheads: list[int],
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
    show("| set | clips | minutes | measure | " + " | ".join(columns) + " |")
    show("|---|---|---|---|" + "---|" * len(columns))
    rates = {}
    for name, rows in sets.items():
        runs = [("own", right) for right in lookaheads] + [(rule, first) for rule in others]
        found = {(rule, right): rate(asr, rows, right, rule) for rule, right in runs}
        rates |= {(name, *run): errors for run, (errors, _) in found.items()}
        cells = [errors for errors, _ in found.values()] + [found[rule, first][1] for rule in ("own", *others)]
        minutes = sum(row["duration"] for row in rows) / 60
        measure = "WER" if languages.BY_LOCALE[rows[0]["lang"]].joiner else "CER"
        show(f"| {name} | {len(rows)} | {minutes:.1f} | {measure} | " + " | ".join(map(evaluate.percent, cells)) + " |")
    return rates


def rows_of_people(sets: dict[str, list[dict]]) -> dict[str, list[dict]]:
    """The sets of the six languages, ``lang`` of each row made a locale (manifests of recordings have de for de-DE)."""
    by_code = {code: language.locale for code, language in languages.BY_CODE.items()} | {
        language.locale: language.locale for language in languages.LANGUAGES
    }
    return {
        name: [dict(row, lang=by_code[row["lang"]]) for row in rows]
        for name, rows in sets.items()
        if all(row["lang"] in by_code for row in rows)
    }
