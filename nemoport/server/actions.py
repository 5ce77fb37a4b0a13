"""What clients ask of a session, and what a session answers, whatever the protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nemoport.utterances import EndRule
from nemoport.words import Segment, Word

PCM16, OPUS = "pcm16", "opus"  # 16-bit little-endian samples, mono; packets of Opus, one in each message
LONGEST_UTTERANCE_S = 30.0  # each event of an utterance holds its text


@dataclass(frozen=True)
class Start:
    """Settings of a session. model: its name on this server, "" for the first; language: of a multilingual model; lookahead: in
    encoder frames; rate_hz: of the samples, 0 for the model's; pause_s: that ends an utterance; progress: an event for each
    chunk, also where it changed no text."""

    model: str = ""
    language: str | None = None
    lookahead: int | None = None
    hotwords: tuple[str, ...] = ()
    hotword_boost: float | None = None
    rate_hz: int = 0
    format: str = PCM16
    pause_s: float = 0.8
    progress: bool = False

    @property
    def rule(self) -> EndRule:
        """Raises UsageError for a pause that is not above 0."""
        return EndRule(self.pause_s, LONGEST_UTTERANCE_S)


@dataclass(frozen=True)
class Audio:
    """The next samples, in the session's format."""

    data: bytes


@dataclass(frozen=True)
class Flush:
    """Ends the utterance here."""


@dataclass(frozen=True)
class Language:
    """Changes the language from the next chunk on."""

    name: str


@dataclass(frozen=True)
class End:
    """Ends the audio."""


Action = Start | Audio | Flush | Language | End


@dataclass(frozen=True)
class Opened:
    """A session has begun. chunk_ms: of audio in each run of the encoder, which is the latency too."""

    id: str
    model: str
    start: Start
    lookahead: int | None
    rate_hz: int
    model_rate_hz: int
    chunk_ms: float


@dataclass(frozen=True)
class Update:
    """What a chunk has changed in the utterance that has not ended. words: complete and final ones that are new; text: of all
    of its complete words; tentative: what follows them, and audio to come may continue or change; audio_s: that was fed."""

    words: Sequence[Word]
    text: str
    tentative: str
    audio_s: float


@dataclass(frozen=True)
class Utterance:
    """An utterance that has ended, whose number is `number`, from 0. new: those of its words that no update had."""

    number: int
    segment: Segment
    new: Sequence[Word] = field(default=())


@dataclass(frozen=True)
class Flushed:
    """What was fed is transcribed."""

    number: int


@dataclass(frozen=True)
class Ended:
    """The audio has ended, and all of it is transcribed."""

    audio_s: float


Event = Opened | Update | Utterance | Flushed | Ended
