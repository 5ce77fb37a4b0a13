"""A live stream from standard input, printed as it becomes final."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from nemoport.cli.output import print_text
from nemoport.ending import end_of_input
from nemoport.errors import AudioError, UsageError
from nemoport.text import printable

if TYPE_CHECKING:
    import numpy as np

    from nemoport.audio import Audio
    from nemoport.recognizer import Recognizer
    from nemoport.tokens import Spelling
    from nemoport.words import Segment

LIVE = "-"  # in place of a file's name


def check_live(options: argparse.Namespace) -> None:
    """Raises UsageError for options that do nothing: of files for a live stream, of a live stream for files."""
    raw = [name for name in ("input_format", "input_rate", "input_channels") if getattr(options, name) is not None]
    if LIVE not in options.audio:
        if options.pause is not None:
            _refuse("--pause", "a live stream from standard input (-)", "files", "leave it out; --json has segments")
        if raw:
            _refuse(f"--{raw[0].replace('_', '-')}", "raw samples from standard input (-)", "files, which have headers")
        return
    if len(options.audio) > 1:
        _refuse(LIVE, "standard input alone", f"{len(options.audio)} names")
    if options.pause is not None and options.pause <= 0:
        _refuse("--pause", "above 0", f"{options.pause:g}", "choose 0.8")
    for name in ("streams", "output", "manifest"):
        if getattr(options, name) is not None:
            _refuse(f"--{name}", "files", "a live stream, which is one")
    for name in ("input_rate", "input_channels"):
        if (value := getattr(options, name)) is not None and value < 1:
            _refuse(f"--{name.replace('_', '-')}", "1 or more", str(value), "choose another one")


def _refuse(option: str, expected: str, found: str, todo: str = "leave it out") -> None:
    raise UsageError(f"{option} cannot be used here.", expected=expected, found=found, todo=todo)


def transcribe_live(recognizer: Recognizer, options: argparse.Namespace, *, as_json: bool) -> None:
    """Prints the text of standard input as soon as it is final; of an offline model at the end. Ctrl-C and SIGTERM end the input:
    the rest is transcribed. Raises AudioError, when what came before is printed, and UsageError."""
    from nemoport.standard_input import NAME, Packets, audio_of

    if sys.stdin is None:
        raise AudioError("There is no standard input.", expected="audio", found="it is closed", todo="pipe audio into it")
    packets, raw = Packets(sys.stdin.buffer), (options.input_format, options.input_rate, options.input_channels)
    ended: list[bool] = []

    def end() -> None:
        ended.append(True)
        packets.end()

    with end_of_input(end), audio_of(packets, recognizer.sample_rate_hz, *raw, options.channel) as audio:
        if options.pause is not None:
            _print_utterances(recognizer, audio, options.pause, as_json=as_json)
        elif recognizer.is_live:
            _print_stream(recognizer, audio, as_json=as_json)
        else:
            _print_whole(recognizer, audio, as_json=as_json)
        if not audio.count and not ended:
            raise AudioError(f"{NAME} is empty.", expected="audio", found="0 samples", todo="see what should write to it")


def _print_whole(recognizer: Recognizer, audio: Audio, *, as_json: bool) -> None:
    from nemoport import formats

    for hypothesis in recognizer.transcribe([(LIVE, audio)]):
        text = formats.as_json(hypothesis, type="end") if as_json else printable(hypothesis.text) + "\n"
        print_text(text, is_json=as_json)


def _feed(audio: Audio, take: Callable[[np.ndarray], None]) -> AudioError | None:
    """Gives all packets to `take`. Returns the error that ended them, so that what came before it can be printed first."""
    try:
        for samples in audio.packets():
            take(samples)
    except AudioError as error:
        return error
    return None


def _print_utterances(recognizer: Recognizer, audio: Audio, pause_s: float, *, as_json: bool) -> None:
    """Prints a line for each utterance when it has ended."""
    from nemoport import formats
    from nemoport.utterances import EndRule

    live = recognizer.utterances(EndRule(pause_s))

    def show(ended: list[Segment]) -> None:
        for segment in ended:
            text = formats.segment_as_json(segment, type="utterance") if as_json else printable(segment.text) + "\n"
            print_text(text, is_json=as_json)

    error = _feed(audio, lambda samples: show(live.feed(samples)))
    show(live.finish())
    if error:
        raise error


def _print_stream(recognizer: Recognizer, audio: Audio, *, as_json: bool) -> None:
    from nemoport import formats

    stream, spelling, started = recognizer.stream(), recognizer.spelling(), time.perf_counter()
    shown, pending = 0, ""
    lines = _Lines(recognizer, spelling)

    def show(tokens: list[int]) -> None:
        nonlocal shown, pending
        if not as_json:
            print_text(lines.feed(tokens))
            return
        text = printable(spelling.feed(tokens))
        timed = stream.timed(shown, shown := shown + len(tokens))
        before, pending = pending, recognizer.text(stream.tokens[shown:])
        if tokens or pending != before:
            fields = {"type": "update", "audio_seconds": audio.count / recognizer.sample_rate_hz}
            fields |= {"text": text, "pending": pending, "tokens": timed.tokens}
            fields["token_seconds"] = [round(second, 6) for second in timed.seconds]
            fields["events"] = [formats.event_fields(event) for event in timed.events(recognizer.session.spec.events)]
            print_text(json.dumps(fields, ensure_ascii=False) + "\n", is_json=True)

    error = _feed(audio, lambda samples: show(stream.feed(samples)))
    show(stream.finish())
    if as_json:
        done = recognizer.hypothesis(stream, id=LIVE, samples=audio.count, work_seconds=time.perf_counter() - started)
        print_text(formats.as_json(done, type="end"), is_json=True)
    else:
        print_text(lines.finish())
    if error:
        raise error


class _Lines:
    """Text of a stream as it becomes final, for a terminal: an event of the model's ends a line."""

    def __init__(self, recognizer: Recognizer, spelling: Spelling):
        events = recognizer.session.spec.events
        self._spelling, self._events = spelling, set(events.kinds) if events else set()
        self._is_begun = self._is_ended = False  # whether the line has text; whether an event ended the one before

    def feed(self, tokens: list[int]) -> str:
        """Takes the next tokens and returns what they add."""
        return "".join(map(self._added, tokens))

    def finish(self) -> str:
        """Returns what waited, and the end of the last line."""
        return self._on_line(self._spelling.finish()) + ("" if self._is_ended else "\n")

    def _added(self, token: int) -> str:
        text = self._on_line(self._spelling.feed([token]))
        if token not in self._events or not self._is_begun:
            return text
        self._is_begun, self._is_ended = False, True
        return text + "\n"

    def _on_line(self, text: str) -> str:
        if not text:
            return ""
        text = text.removeprefix(" ") if self._is_ended else text
        self._is_begun, self._is_ended = True, False
        return printable(text)
