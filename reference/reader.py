"""Reads recordings from NeMo manifests and keeps the held-out sentences of one reader from training.

The reader is the speaker of most recordings; see README.md. ``text/reader_held_out.txt`` lists, one normalised sentence a
line, what is kept from training in every recording of it: the reader speaks some sentences up to seven times, so the split
goes by the sentence and never by the clip.
"""

from __future__ import annotations

import json
from pathlib import Path

from . import french, languages, text, written


def held_out_sentences() -> frozenset[str]:
    """Normalised sentences of the reader that are kept from training."""
    return frozenset((text.TEXT_FOLDER / "reader_held_out.txt").read_text().splitlines())


def rows(manifest: Path, held_out: bool) -> list[dict]:
    """Reads the rows of one side of the split, text normalised and audio_filepath absolute.

    Training rows (``held_out=False``) also exclude every text with a held-out word. Raises ValueError on a manifest
    without rows.
    """
    records = [json.loads(line) for line in manifest.read_text().splitlines()]
    if not records:
        raise ValueError(f"{manifest} has no rows; expected a NeMo manifest, one JSON object a line")
    sentences, words = held_out_sentences(), text.held_out_words()
    chosen = []
    for record in records:
        normal = text.normalise(record["text"])
        if held_out and normal in sentences or not held_out and normal not in sentences and text.trainable(normal, words):
            chosen.append(dict(record, text=normal, audio_filepath=str(manifest.parent / record["audio_filepath"])))
    return chosen


def written_rows(manifest: Path) -> list[dict]:
    """Reads training rows with the capitals and punctuation of their transcripts (``written.tidy``), by their ``lang``.

    Left out are held-out sentences, texts with a held-out word and those that ``written.tidy`` refuses.
    """
    sentences, words, french_words = held_out_sentences(), text.held_out_words(), french.held_out_words()
    chosen = []
    for line in manifest.read_text().splitlines():
        record = json.loads(line)
        sentence = written.tidy(record["text"])
        if not sentence:
            continue
        if record["lang"] == "fr":
            kept = french.trainable(sentence, french_words)
        else:
            normal = text.normalise(sentence)
            kept = normal not in sentences and text.trainable(normal, words)
        if kept:
            chosen.append(dict(record, text=sentence, audio_filepath=str(manifest.parent / record["audio_filepath"])))
    return chosen


def prompted_rows(manifest: Path) -> list[dict]:
    """Reads training rows of the prompted model: text as ``languages.tidy`` leaves it, ``lang`` the locale.

    Left out are held-out sentences of the reader, texts with a held-out word and those with other characters.
    """
    sentences, chosen = held_out_sentences(), []
    for line in manifest.read_text().splitlines():
        record = json.loads(line)
        language = languages.BY_CODE[record["lang"]]
        sentence = languages.tidy(record["text"], language)
        if sentence and text.normalise(sentence) not in sentences and language.trainable(sentence):
            chosen.append(
                dict(record, text=sentence, lang=language.locale, audio_filepath=str(manifest.parent / record["audio_filepath"]))
            )
    return chosen
