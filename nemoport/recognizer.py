"""The Python API: open an artifact, transcribe files, or feed live audio."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from nemoport.artifact import Artifact
from nemoport.audio import read_audio
from nemoport.beam import BeamSearch
from nemoport.errors import UsageError
from nemoport.hotwords import DEFAULT_BOOST, Hotwords
from nemoport.long_audio import Timed, merge, windows
from nemoport.session import Session
from nemoport.spec import ModelSpec
from nemoport.stream import Stream, advance
from nemoport.tokens import detokenize, read_tokens, split_tags


@dataclass(frozen=True)
class Hypothesis:
    """What was heard. Times are those of the encoder frames on which the tokens came out; durations are what a TDT model
    gives with each token, 0 of an RNNT model. languages: of the tags that a model with a prompt writes; `text` is without
    them, `tokens` with them."""

    id: str
    text: str
    languages: tuple[str, ...]
    tokens: tuple[int, ...]
    token_seconds: tuple[float, ...]
    token_duration_seconds: tuple[float, ...]
    audio_seconds: float
    work_seconds: float  # computing time of the batch it ran in, shared evenly


PASS_S, OVERLAP_S = 390.0, 15.0  # what an offline model hears at once, as published, and what two windows share


class Recognizer:
    """An artifact opened in a runtime. One recognizer serves any number of streams."""

    def __init__(
        self,
        session: Session,
        filterbank: np.ndarray,
        pieces: list[str],
        lookahead: int | None,
        flush: str = "full",
        pass_s: float = PASS_S,
        language: str | None = None,
        search: BeamSearch | None = None,
    ):
        """search: greedy without."""
        self.session, self.lookahead, self.flush, self.pass_s = session, lookahead, flush, pass_s
        self.prompt = _slot(session.spec, language)
        self._filterbank, self._pieces, self._search = filterbank, pieces, search

    @staticmethod
    def open(
        folder: Path | str,
        lookahead: int | None = None,
        *,
        flush: str = "full",
        provider: str = "cpu",
        threads: int = 0,
        pass_s: float = PASS_S,
        language: str | None = None,
        beam: int = 1,
        hotwords: Sequence[str] = (),
        hotword_boost: float | None = None,
    ) -> Recognizer:
        """folder: a variant of a build or package; lookahead: encoder frames of right context, default config.json's;
        none for an offline model. pass_s: longer recordings are heard by an offline model in windows of so many seconds,
        which overlap by 15; inf for one pass whatever the length. language: as the model's dictionary names it, such as
        de-DE or auto; needed by a model with a prompt, and by no other. beam: paths of the search (beam.py), 1 for greedy.
        hotwords: phrases to expect, for a beam of 2 or more; hotword_boost: what each token of one adds to the log score,
        default 1.5.

        Raises ArtifactError for a damaged folder, UsageError for a lookahead, provider or language that is not there, and
        for a beam or hotwords that cannot be.
        """
        from nemoport.runtimes import open_session

        artifact = Artifact.open(folder)
        lookahead = _lookahead(artifact, lookahead)
        pieces = read_tokens(artifact.shared / "tokens.txt")
        search = _search(pieces, beam, hotwords, hotword_boost)
        return Recognizer(
            open_session(artifact, provider, threads),
            artifact.filterbank(),
            pieces,
            lookahead,
            flush,
            pass_s,
            language,
            search,
        )

    @property
    def sample_rate_hz(self) -> int:
        return self.session.spec.frontend.sample_rate_hz

    def stream(self, language: str | None = None) -> Stream:
        """A live stream: `feed(samples)` and `finish()` return new token ids; `text(stream.tokens)` spells them.

        language: another than the recognizer's. Raises UsageError if the model does not know it.
        """
        prompt = self.prompt if language is None else _slot(self.session.spec, language)
        return Stream(self.session, self._filterbank, self.lookahead, self.flush, prompt, self._search)

    def text(self, tokens: Iterable[int]) -> str:
        """Without language tags, of a model that writes them."""
        return self._decode_text(tokens)[0]

    def languages(self, tokens: Iterable[int]) -> tuple[str, ...]:
        """Of the tags among the tokens, in order."""
        return self._decode_text(tokens)[1]

    def _decode_text(self, tokens: Iterable[int]) -> tuple[str, tuple[str, ...]]:
        text = detokenize(self._pieces, list(tokens))
        return split_tags(text) if self.session.spec.prompt else (text, ())

    def transcribe_file(self, path: Path | str) -> Hypothesis:
        """Raises AudioError."""
        return next(self.transcribe([(str(path), read_audio(Path(path), self.sample_rate_hz))]))

    def transcribe(
        self, utterances: Iterable[tuple[str, np.ndarray]], *, streams: int = 1, packet_samples: int = 0
    ) -> Iterator[Hypothesis]:
        """utterances: (id, f32 [n] at `sample_rate_hz`). Runs up to `streams` at once in one batch: as one ends, the
        next one joins. packet_samples: how much audio is fed at a time, 0 for all at once. Yields in order of ending.
        """
        waiting = iter(utterances)
        running: list[_Running] = []
        while True:
            while len(running) < streams and (following := next(waiting, None)) is not None:
                running.append(_Running(*following, self._spans(len(following[1])), self.stream()))
            if not running:
                return
            started = time.perf_counter()
            for member in running:
                member.feed_until_chunk(packet_samples)
            advance(self.session, [member.stream for member in running])
            share = (time.perf_counter() - started) / len(running)
            for member in running:
                member.work_seconds += share
            for member in [m for m in running if m.done]:
                member.heard.append((member.spans.pop(0)[0] / self.sample_rate_hz, self._timed(member.stream)))
                if member.spans:
                    member.begin(self.stream())
                else:
                    running.remove(member)
                    yield self._hypothesis(member)

    def _spans(self, n_samples: int) -> list[tuple[int, int]]:
        """(start, end) in samples of what is heard at once: all, or an offline model's windows."""
        if self.session.spec.streaming or n_samples <= self.pass_s * self.sample_rate_hz:
            return [(0, n_samples)]
        found = windows(n_samples / self.sample_rate_hz, self.pass_s, OVERLAP_S)
        return [(round(start * self.sample_rate_hz), round(end * self.sample_rate_hz)) for start, end in found]

    def _timed(self, stream: Stream) -> Timed:
        durations = (frames * self.session.spec.frame_seconds for frames in stream.decoded.token_durations)
        return Timed(tuple(stream.tokens), tuple(stream.token_seconds), tuple(durations))

    def _hypothesis(self, member: _Running) -> Hypothesis:
        heard = merge(member.heard)
        return Hypothesis(
            id=member.id,
            text=self.text(heard.tokens),
            languages=self.languages(heard.tokens),
            tokens=heard.tokens,
            token_seconds=heard.seconds,
            token_duration_seconds=heard.durations,
            audio_seconds=len(member.samples) / self.sample_rate_hz,
            work_seconds=member.work_seconds,
        )


def _search(pieces: list[str], beam: int, hotwords: Sequence[str], boost: float | None) -> BeamSearch | None:
    """None: greedy."""
    search = BeamSearch(beam)
    if isinstance(hotwords, str):
        raise UsageError("Hotwords are a list.", expected="a list of phrases", found=repr(hotwords), todo="put it in brackets")
    if beam == 1 and (hotwords or boost is not None):
        raise UsageError(
            "Hotwords need a beam search.",
            expected="a beam of 2 or more",
            found="greedy decoding, which weighs one token against another and no texts",
            todo="choose a beam (--beam 4), or leave the hotwords out",
        )
    if hotwords or boost is not None:
        search = replace(search, hotwords=Hotwords(pieces, hotwords, DEFAULT_BOOST if boost is None else boost))
    return search if beam > 1 else None


def _lookahead(artifact: Artifact, wanted: int | None) -> int | None:
    """What is wanted, or the default. What the model itself has not, is refused where chunks are cut."""
    if wanted is None and artifact.spec.streaming:
        default = int(artifact.config()["encoder"]["default_lookahead"])
        return default if default in artifact.lookaheads else artifact.lookaheads[0]
    if wanted in artifact.spec.lookaheads and wanted not in artifact.lookaheads:
        raise UsageError(
            f"{artifact.folder.name} has fixed shapes, for one lookahead.",
            expected=", ".join(map(str, artifact.lookaheads)),
            found=str(wanted),
            todo="export it for this one into a build of its own (--profile, see `nemoport export --help`)",
        )
    return wanted


def _slot(spec: ModelSpec, language: str | None) -> int | None:
    if spec.prompt:
        return spec.prompt.slot(language)
    if language:
        raise UsageError(
            "This model has no language prompt.",
            expected="no language: it knows only what it was trained on",
            found=language,
            todo="leave --language out",
        )
    return None


@dataclass
class _Running:
    id: str
    samples: np.ndarray
    spans: list[tuple[int, int]]  # still to be heard, this one first
    stream: Stream
    heard: list[tuple[float, Timed]] = field(default_factory=list)  # start of a span in seconds, what it said
    position: int = 0
    closed: bool = False
    work_seconds: float = 0.0

    @property
    def done(self) -> bool:
        return self.closed and not self.stream.chunks

    def begin(self, stream: Stream) -> None:
        """Goes on to the next span."""
        self.stream, self.position, self.closed = stream, self.spans[0][0], False

    def feed_until_chunk(self, packet_samples: int) -> None:
        """Feeds packets until a chunk is cut, or the span ends."""
        last = self.spans[0][1]
        while not self.stream.chunks and not self.closed:
            end = min(self.position + packet_samples, last) if packet_samples else last
            self.stream.push(self.samples[self.position : end])
            self.position = end
            if end >= last:
                self.stream.close()
                self.closed = True
