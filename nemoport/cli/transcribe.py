"""`nemoport transcribe`: audio files, or a live stream from stdin, to text."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nemoport.cli.command import Command, option
from nemoport.errors import AudioError, UsageError
from nemoport.files import write_bytes
from nemoport.text import printable

if TYPE_CHECKING:
    from nemoport.audio import Audio
    from nemoport.recognizer import Recognizer
    from nemoport.transcription import Hypothesis

LIVE = "-"  # in place of a file's name


SUFFIXES = {"text": "txt"}
TEXT, TIMED_TEXT = "text", ("srt", "vtt", "tsv")  # of one recording each


def run(options: argparse.Namespace) -> int | None:
    from nemoport.recognizer import Recognizer

    chosen = "json" if options.json else options.format
    _check_output(options, chosen)
    recognizer = Recognizer.open(
        options.artifact,
        options.lookahead,
        flush=options.flush,
        provider=options.provider,
        threads=options.threads,
        pass_s=options.pass_seconds,
        language=options.language,
        beam=options.beam,
        hotwords=options.hotword,
        hotword_boost=options.hotword_boost,
        scripts=options.script,
        token_mask=options.tokens,
        trim_silence=options.trim_silence,
        confidence=options.confidence,
        variant=options.variant,
    )
    if options.audio == [LIVE]:
        return _transcribe_live(recognizer)
    unusable: list[str] = []

    def failed(name: str, error: AudioError) -> None:
        print(f"nemoport: {error}", file=sys.stderr, flush=True)
        unusable.append(name)

    files = _readable(options.audio, recognizer.sample_rate_hz, failed)
    for hypothesis in recognizer.transcribe(files, streams=options.streams, failed=failed):
        text = _formatted(hypothesis, chosen, with_id=options.output is None)
        if options.output:
            write_bytes(options.output / f"{Path(hypothesis.id).stem}.{SUFFIXES.get(chosen, chosen)}", text.encode())
        else:
            sys.stdout.write(text)
            sys.stdout.flush()
    if len(unusable) > 1:
        print(f"nemoport: {len(unusable)} of {len(options.audio)} files could not be read, see above", file=sys.stderr)
    return AudioError.exit_code if unusable else None


def _check_output(options: argparse.Namespace, chosen: str) -> None:
    """Raises UsageError for files and formats that do not go together."""
    if chosen == TEXT and not options.output:
        return
    if options.audio == [LIVE]:
        expected, todo = "text on standard output", "leave --format and --output out, or name files"
        raise UsageError("A live stream has no other format.", expected=expected, found=chosen, todo=todo)
    stems = [Path(name).stem for name in options.audio]
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


def _readable(names: Sequence[str], rate_hz: int, failed: Callable[[str, AudioError], None]) -> Iterator[tuple[str, Audio]]:
    """Opens files one after another. One that cannot be used is reported by `failed`, and the others are transcribed."""
    from nemoport.audio import open_audio

    for name in names:
        try:
            yield name, open_audio(name, rate_hz)
        except AudioError as error:
            failed(name, error)


def _transcribe_live(recognizer: Recognizer) -> None:
    """Prints the text of raw 16-bit PCM from stdin as soon as it is final; of an offline model at the end."""
    import numpy as np

    if recognizer.session.spec.streaming is None:
        samples = np.frombuffer(_whole(recognizer), "<i2").astype(np.float32) / 32768
        for hypothesis in recognizer.transcribe([(LIVE, samples)]):
            print(printable(hypothesis.text))
        return
    stream, spelling = recognizer.stream(), recognizer.spelling()

    def show(tokens: list[int]) -> None:
        sys.stdout.write(printable(spelling.feed(tokens)))
        sys.stdout.flush()

    for packet in _packets():
        show(stream.feed(np.frombuffer(packet, "<i2").astype(np.float32) / 32768))
    show(stream.finish())
    print(printable(spelling.finish()))


def _packets() -> Iterator[bytes]:
    """Yields what stdin has, in whole samples."""
    # typeshed types the buffer as BinaryIO; a process's is an io.BufferedReader.
    while packet := sys.stdin.buffer.read1(65536):  # pyright: ignore[reportAttributeAccessIssue]
        if len(packet) % 2:
            packet += sys.stdin.buffer.read(1)
        yield packet[: len(packet) // 2 * 2]


def _whole(recognizer: Recognizer) -> bytearray:
    """Reads stdin to its end. Raises AudioError for more than a recording can have."""
    from nemoport.audio import check_length

    whole = bytearray()
    for packet in _packets():
        whole += packet
        check_length(len(whole) // 2, recognizer.sample_rate_hz, "Standard input")
    return whole


COMMAND = Command(
    "transcribe",
    "transcribe audio files or a live stream",
    (
        option("artifact", help="a variant's folder, such as dist/streaming-en/int8-static, or organisation/name on the Hub"),
        option("audio", nargs="+", help="audio files; - reads raw 16-bit mono PCM at the model's rate, live"),
        option("--variant", metavar="NAME", help="of a folder or a Hub package that holds several"),
        option("--lookahead", type=int, help="right context in encoder frames of 80 ms; see config.json"),
        option("--flush", default="full", help="full: to the last frame; nemo: as NeMo's streaming buffer"),
        option("--streams", type=int, default=1, help="files transcribed at once, in one batch"),
        option("--provider", default="cpu", help="cpu, cuda, tensorrt, coreml, dml; in OpenVINO cpu, gpu, npu"),
        option("--threads", type=int, default=0, help="0: the runtime's choice"),
        option("--pass-seconds", type=float, help="offline models transcribe longer files in windows this long; default: 390"),
        option("--language", help="for a model with a language prompt: a name of its dictionary, such as de-DE or auto"),
        option("--beam", type=int, default=1, metavar="N", help="paths of a beam search; 1: greedy"),
        option("--hotword", action="append", default=[], metavar="PHRASE", help="to be expected; repeat for several"),
        option("--hotword-boost", type=float, metavar="X", help="log score of each of its tokens; default: 1.5"),
        option("--script", action="append", default=[], metavar="NAME", help="letters to emit, as Latin; repeat for several"),
        option("--tokens", type=Path, metavar="FILE", help="the lines of tokens.txt that may be emitted"),
        option("--trim-silence", action="store_true", help="offline models: leave out silence before and behind the speech"),
        option("--format", choices=(TEXT, "json", *TIMED_TEXT), default=TEXT, help="subtitles are srt and vtt; tsv is a table"),
        option("--json", action="store_true", help="--format json: an object a line, with words, tokens, times and confidence"),
        option("--output", type=Path, metavar="FOLDER", help="write a file for each recording there, in place of printing"),
        option("--confidence", default="max_prob", metavar="MEASURE", help="NeMo's name of a measure, as entropy_tsallis_exp"),
    ),
    run,
)
