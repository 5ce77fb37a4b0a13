"""`nemoport evaluate`: a package over much audio, without NeMo. Exit code 2: an utterance could not be transcribed."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from nemoport.cli import transcribe, validate
from nemoport.cli.command import Command, grouped, option
from nemoport.cli.score import BY, DEFAULT_SCORERS, LEADERBOARD, SCORER, print_scores
from nemoport.errors import NemoportError, UsageError

if TYPE_CHECKING:
    from nemoport.artifact import Artifact
    from nemoport.evaluation.sources import DataSet
    from nemoport.evaluation.summary import Summary

# Options that mean the same as of these commands.
OF_TRANSCRIBE = (
    "--channel --variant --lookahead --chunk-frames --right-frames --flush --provider --pass-seconds --language --beam --hotword "
    "--hotword-boost --lm --lm-weight --word-bonus --script --tokens --trim-silence"
).split()
OF_VALIDATE = ("--languages", "--split", "--limit", "--dataset-revision")
MOST_NAMED = 20


def run(options: argparse.Namespace) -> int | None:
    from nemoport.evaluation.evaluate import Workers, evaluate
    from nemoport.evaluation.identity import Settings
    from nemoport.evaluation.item import Shard
    from nemoport.evaluation.scorers import scorer

    if bool(options.data) == bool(options.dataset):
        found = "both" if options.data else "neither"
        raise UsageError("One data set is needed.", expected="DATA, or --dataset", found=found, todo="give one of them")
    scorers = [
        scorer(name, options.leaderboard) for name in options.scorer or DEFAULT_SCORERS
    ]  # refuses now what is not installed
    settings = Settings(
        lookahead=options.lookahead,
        chunk_frames=options.chunk_frames,
        right_frames=options.right_frames,
        flush=options.flush,
        provider=options.provider,
        threads=options.threads,
        pass_s=options.pass_seconds,
        language=options.language,
        beam=options.beam,
        hotwords=tuple(options.hotword),
        hotword_boost=options.hotword_boost,
        language_model=transcribe.language_model(options),
        scripts=tuple(options.script),
        token_mask=str(options.tokens.absolute()) if options.tokens else None,
        trim_silence=options.trim_silence,
        channel=options.channel,
    )
    started = time.monotonic()
    summary = evaluate(
        options.artifact,
        lambda artifact: _data(options, artifact),
        options.output,
        settings,
        variant=options.variant,
        shard=Shard.parse(options.shard),
        workers=Workers(options.engine, options.workers, options.address, options.pack),
        retry_failed=options.retry_failed,
        progress=options.progress,
    )
    print(_line(summary, time.monotonic() - started), file=sys.stderr)
    print_scores(options.output, scorers, options.by, as_json=options.json)
    return print_failed(summary)


def print_failed(summary: Summary) -> int | None:
    """Names the utterances that failed on stderr, and returns the exit code."""
    for id, error in list(summary.failed.items())[:MOST_NAMED]:
        print(f"nemoport: {id}: {error}", file=sys.stderr)
    if summary.failures:
        print(f"nemoport: {summary.failures} of {summary.utterances} utterances failed; see summary.json", file=sys.stderr)
    return NemoportError.exit_code if summary.failures else None


def _line(summary: Summary, seconds: float) -> str:
    hours = summary.audio_s / 3600
    figures = f"{summary.utterances} utterances, {hours:.2f} hours of audio, this run {seconds:.0f} s"
    return f"{figures}, {summary.processor_s / hours:.0f} processor seconds an hour" if hours else figures


def _data(options: argparse.Namespace, artifact: Artifact) -> DataSet:
    from nemoport.evaluation.evaluate import SPOOL
    from nemoport.evaluation.sources import open_data, stream_data

    if options.data:
        return open_data(options.data)
    languages = [language for language in options.languages.split(",") if language]
    more = options.split, options.limit, options.dataset_revision
    return stream_data(options.dataset, languages, options.output / SPOOL, artifact.spec, *more)


WORKERS = (
    option("--engine", choices=("local", "ray"), default="local", help="ray: over the machines of a Ray cluster"),
    option("--address", help="of a running Ray cluster, such as 10.0.0.1:6379; default: Ray on this machine"),
    option("--workers", type=int, default=0, metavar="N", help="processes; default: one for each --threads processors"),
    option("--threads", type=int, default=1, help="of each worker; default: 1"),
    option("--pack", type=int, default=8, metavar="N", help="utterances that Ray hands over at once; default: 8"),
    option("--shard", default="1/1", metavar="I/N", help="part I of N, for machines of their own; nemoport merge joins them"),
)
COMMAND = Command(
    "evaluate",
    "transcribe much audio, on one machine or many, and score the texts",
    (
        option("artifact", help="a package, the folder of one of its variants, or organisation/name of one on the Hub"),
        option("data", nargs="?", type=Path, help="NeMo manifest, or a folder of audio with texts (a.txt, metadata.jsonl, .csv)"),
        option("--output", required=True, type=Path, metavar="FOLDER", help="of the results; one that was stopped goes on"),
        option("--dataset", help="in place of DATA: a data set of the Hub such as google/fleurs, which is streamed"),
        *(one for one in validate.COMMAND.options if one.flags[0] in OF_VALIDATE),
        option("--retry-failed", action="store_true", help="try utterances again that failed before"),
        option("--json", action="store_true", help="the scores as JSON"),
        *grouped("scores", SCORER, BY, LEADERBOARD),
        *grouped("workers", *WORKERS),
        *(one for one in transcribe.COMMAND.options if one.flags[0] in OF_TRANSCRIBE),
    ),
    run,
    examples=(
        "nemoport evaluate dist/my eval.jsonl --output results/eval --scorer wer --scorer whisper-basic",
        "nemoport evaluate me/my-onnx --dataset google/fleurs --languages de_de,fr_fr --output results/fleurs",
        "nemoport evaluate /data/my /data/eval.jsonl --output results/eval --engine ray --address 10.0.0.1:6379",
    ),
    extras="evaluate",
)
