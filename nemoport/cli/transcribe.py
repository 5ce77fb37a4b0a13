"""`nemoport transcribe`: audio files, or a live stream from stdin, to text."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nemoport.cli.command import Command, grouped, option
from nemoport.cli.live import LIVE, check_live, transcribe_live
from nemoport.cli.output import print_text
from nemoport.cli.progress import WatchedAudio, is_terminal
from nemoport.cli.registries import flush_rules, measures
from nemoport.errors import AudioError, UsageError
from nemoport.files import write_bytes
from nemoport.progress import Progress, silent
from nemoport.text import printable

if TYPE_CHECKING:
    from nemoport.inputs import Source
    from nemoport.language_model import ArpaFile
    from nemoport.recognizer import Recognizer
    from nemoport.transcription import Hypothesis

RAW = ("s16le", "s24le", "s32le", "f32le", "u8", "mulaw", "alaw")  # of nemoport.wav.RAW_FORMATS
SUFFIXES = {"text": "txt"}
TEXT, TIMED_TEXT = "text", ("srt", "vtt", "tsv")  # of one recording each


@dataclass(frozen=True)
class Segment:
    """A file to transcribe, or a segment of it."""

    name: str
    path: Path
    offset_s: float = 0.0
    duration_s: float = 0.0  # 0: to the end
    language: str | None = None


def run(options: argparse.Namespace) -> int | None:
    from nemoport.ctc_times import with_nemo_times
    from nemoport.hub_package import variant_folder
    from nemoport.recognizer import Recognizer

    chosen = "json" if options.json else options.format
    check_live(options)
    unusable: list[str] = []

    def failed(name: str, error: AudioError) -> None:
        print(f"nemoport: {error}", file=sys.stderr, flush=True)
        unusable.append(name)

    files = [] if options.audio == [LIVE] else _files(options, failed)
    _check_output(options, chosen, [file.name for file in files])
    folder = variant_folder(options.artifact, options.variant)
    if not options.variant and folder != Path(options.artifact).expanduser():
        options.progress(f"nemoport: variant {folder.name}; --variant names another")
    recognizer = Recognizer.open(
        folder,
        options.lookahead,
        flush=options.flush,
        provider=options.provider,
        threads=options.threads,
        pass_s=options.pass_seconds,
        language=options.language,
        beam=options.beam,
        hotwords=options.hotword,
        hotword_boost=options.hotword_boost,
        language_model=language_model(options),
        scripts=options.script,
        token_mask=options.tokens,
        trim_silence=options.trim_silence,
        confidence=options.confidence,
        reset=not options.no_reset,
        chunk_frames=options.chunk_frames,
        right_frames=options.right_frames,
    )
    if options.audio == [LIVE]:
        return transcribe_live(recognizer, options, as_json=chosen == "json")
    watched = _watched(options)
    opened = _opened(files, recognizer, options.channel, failed, watched)
    for hypothesis in recognizer.transcribe(opened, streams=1 if options.streams is None else options.streams, failed=failed):
        if options.nemo_times:
            hypothesis = with_nemo_times(hypothesis, recognizer.word_times(), recognizer.session.spec)
        text = _formatted(hypothesis, chosen, with_id=options.output is None)
        if options.output:
            write_bytes(options.output / f"{Path(hypothesis.id).stem}.{SUFFIXES.get(chosen, chosen)}", text.encode())
        else:
            print_text(text, is_json=chosen == "json")
    if len(unusable) > 1:
        print(f"nemoport: {len(unusable)} of {len(files)} files could not be read, see above", file=sys.stderr)
    return AudioError.exit_code if unusable else None


def language_model(options: argparse.Namespace) -> ArpaFile | None:
    """Returns what --lm names. Raises UsageError for settings of a language model without one."""
    from nemoport.language_model import ArpaFile

    settings = {"weight": options.lm_weight, "word_bonus": options.word_bonus}
    settings = {name: value for name, value in settings.items() if value is not None}
    if options.lm:
        return ArpaFile(options.lm.absolute(), **settings)
    if settings:
        what = "--lm-weight and --word-bonus are of a language model."
        raise UsageError(what, expected="--lm FILE beside them", found="none", todo="name one, or leave them out")
    return None


def _check_output(options: argparse.Namespace, chosen: str, names: Sequence[str]) -> None:
    """Raises UsageError for files and formats that do not go together."""
    if options.audio == [LIVE] and chosen in TIMED_TEXT:
        expected, todo = "text or json", "leave --format out, or name files"
        raise UsageError("A live stream has no such format.", expected=expected, found=chosen, todo=todo)
    stems = [Path(name).stem for name in names]
    if options.output and (twice := next((stem for stem in stems if stems.count(stem) > 1), None)):
        what = f"Two files would be written to the same name, {twice}."
        raise UsageError(what, expected="files of different names", found=f"{twice} twice", todo="transcribe them one by one")
    if chosen in TIMED_TEXT and len(stems) > 1 and not options.output:
        what = f"The format {chosen} is for one recording."
        todo = "name a folder that each is written into: --output FOLDER"
        raise UsageError(what, expected="one file", found=str(len(stems)), todo=todo)


def _formatted(hypothesis: Hypothesis, chosen: str, *, with_id: bool) -> str:
    from nemoport.formats import FORMATS

    if chosen == TEXT:
        return printable(f"{hypothesis.id}\t{hypothesis.text}" if with_id else hypothesis.text) + "\n"
    return FORMATS[chosen](hypothesis)


def _files(options: argparse.Namespace, failed: Callable[[str, AudioError], None]) -> list[Segment]:
    """Returns the files that are named, in folders, by patterns and in a manifest. Raises CorpusError, UsageError."""
    from nemoport.inputs import audio_files
    from nemoport.speech.manifest import read_rows

    files = []
    for name in options.audio:
        try:
            files += [Segment(found, Path(found)) for found in audio_files(name)]
        except AudioError as error:
            failed(name, error)
    for row in read_rows(options.manifest) if options.manifest else ():
        language = row.prompt_language or row.language or None
        files.append(Segment(row.name, row.path, row.offset_s, row.duration_s, language))
    if not options.audio and not files:
        raise UsageError("There is nothing to transcribe.", expected="files, - or --manifest", found="none", todo="name them")
    return files


def _watched(options: argparse.Namespace) -> Progress:
    """Bars of recordings on a terminal, if no text is printed on it meanwhile."""
    several = (options.streams or 1) > 1 and sys.stdout.isatty() and not options.output
    return options.progress if is_terminal() and not several else silent


def _opened(
    files: Sequence[Segment],
    recognizer: Recognizer,
    channel: int | None,
    failed: Callable[[str, AudioError], None],
    progress: Progress,
) -> Iterator[tuple[str, Source, str | None]]:
    """Opens files one after another. One that cannot be used is reported by `failed`, and the others are transcribed."""
    from nemoport.audio import open_audio

    for file in files:
        language = file.language if recognizer.session.spec.prompt else None
        rate_hz = recognizer.sample_rate_hz
        try:
            audio = open_audio(file.path, rate_hz, channel=channel, offset_s=file.offset_s, duration_s=file.duration_s)
            yield file.name, WatchedAudio(audio, rate_hz, file.name, progress), language
        except AudioError as error:
            failed(file.name, error)


INPUT = (
    option("--manifest", type=Path, metavar="FILE", help="NeMo manifest: audio_filepath, offset, duration, lang"),
    option("--channel", type=int, metavar="N", help="channel to transcribe, from 0; default: the average of all"),
    option("--input-format", choices=RAW, help="of raw samples from -; default: s16le"),
    option("--input-rate", type=int, metavar="HZ", help="of raw samples from -; default: the model's"),
    option("--input-channels", type=int, metavar="N", help="of raw samples from -; default: 1"),
    option("--trim-silence", action="store_true", help="offline models: leave out silence before and behind the speech"),
)
MODEL = (
    option("--variant", metavar="NAME", help="of a package that holds several; default: one of INT8 that is near to fp32"),
    option("--lookahead", type=int, help="right context in encoder frames of 80 ms; see config.json"),
    option("--chunk-frames", type=int, metavar="N", help="buffered models: frames of 80 ms that each window decodes; live: 7"),
    option("--right-frames", type=int, metavar="N", help="and those behind them; latency: both together; files: full context"),
    option("--language", help="for a model with a language prompt: a name of its dictionary, such as de-DE or auto"),
    option("--flush", default="full", names=flush_rules, help="%(names)s: to the last frame, or as NeMo's streaming buffer"),
    option("--streams", type=int, help="files transcribed at once, in one batch; default: 1"),
    option("--provider", default="cpu", help="cpu, cuda, tensorrt, coreml, dml; in OpenVINO cpu, gpu, npu"),
    option("--threads", type=int, default=0, help="0: the runtime's choice"),
    option("--pass-seconds", type=float, help="offline models transcribe longer files in windows this long; default: 390"),
)
DECODING = (
    option("--beam", type=int, default=1, metavar="N", help="paths of a beam search; 1: greedy"),
    option("--hotword", action="append", default=[], metavar="PHRASE", help="to be expected; repeat for several"),
    option("--hotword-boost", type=float, metavar="X", help="log score of each of its tokens; default: 1.5"),
    option("--no-reset", action="store_true", help="go on behind an end of utterance with the decoder as it is"),
    option("--lm", type=Path, metavar="FILE", help="with --beam, of a CTC model: a language model of words, ARPA"),
    option("--lm-weight", type=float, metavar="X", help="of the language model; default: 0.5"),
    option("--word-bonus", type=float, metavar="X", help="log score of each word, with a language model; default: 1.5"),
    option("--script", action="append", default=[], metavar="NAME", help="letters to emit, as Latin; repeat for several"),
    option("--tokens", type=Path, metavar="FILE", help="the lines of tokens.txt that may be emitted"),
    option("--confidence", default="max_prob", metavar="MEASURE", names=measures, help="%(names)s; default: %(default)s"),
)
OUTPUT = (
    option("--format", choices=(TEXT, "json", *TIMED_TEXT), default=TEXT, help="subtitles are srt and vtt; tsv is a table"),
    option("--json", action="store_true", help="--format json: an object a line, with words, tokens, times and confidence"),
    option("--output", type=Path, metavar="FOLDER", help="write a file for each recording there, in place of printing"),
    option("--nemo-times", action="store_true", help="of a CTC model: times of tokens and words as NeMo's, not of their sound"),
    option("--pause", type=float, metavar="SECONDS", help="from -: a line for each utterance, which a pause this long ends"),
)
COMMAND = Command(
    "transcribe",
    "transcribe audio files or a live stream",
    (
        option("artifact", help="a package, the folder of one of its variants, or organisation/name of one on the Hub"),
        option("audio", nargs="*", help="files, folders, patterns; - is live: WAV, or raw 16-bit mono PCM at the model's rate"),
        *grouped("input", *INPUT),
        *grouped("model", *MODEL),
        *grouped("decoding", *DECODING),
        *grouped("output", *OUTPUT),
    ),
    run,
    examples=(
        "nemoport transcribe dist/my talk.wav",
        "nemoport transcribe me/my-onnx recordings/ --format srt --output subtitles",
        "arecord -f S16_LE -r 16000 -c 1 | nemoport transcribe dist/my - --pause 0.8",
    ),
)
