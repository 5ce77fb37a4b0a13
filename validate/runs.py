"""An artifact over a corpus: both flush rules in one pass, several streams at once, packets of every size."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from nemoport.artifact import Artifact
from nemoport.calibration.corpus import Corpus, Utterance
from nemoport.decode import Session
from nemoport.errors import ArtifactError
from nemoport.stream import FLUSH_RULES, Stream, advance
from nemoport.tokens import detokenize, read_tokens
from nemoport.validate.oracle import sample_positions

PACKETS_MS = (1, 10, 37, 100, 560, 5000)  # 37: no multiple of anything


@dataclass(frozen=True)
class Heard:
    """One utterance by one flush rule. sampled_frames: f32 [k, d_model] at `oracle.sample_positions`."""

    id: str
    tokens: tuple[int, ...]
    token_frames: tuple[int, ...]
    text: str
    enc_frames: int
    sampled_frames: np.ndarray
    packet_ms: int


@dataclass(frozen=True)
class CorpusRunner:
    """Runs one session over utterances."""

    session: Session
    filterbank: np.ndarray
    pieces: list[str]

    @staticmethod
    def open(artifact: Artifact, session: Session) -> CorpusRunner:
        return CorpusRunner(session, artifact.filterbank(), read_tokens(artifact.shared / "tokens.txt"))

    def run(
        self, corpus: Corpus, lookahead: int, streams: int, progress: Callable[[float], None] = lambda seconds: None
    ) -> dict[str, tuple[Heard, ...]]:
        """flush rule -> what was heard, in the corpus's order.

        Up to `streams` utterances at once; one joins at each step until all places are taken, then as others end.
        Utterance u at the checkpoint's i-th lookahead is fed in packets of PACKETS_MS[u + 2i] and [u + 2i + 1] (by one
        rule and by the other, round the list): over four lookaheads each utterance sees every size.
        Raises ArtifactError if a packet size changes the chunks or if a number is not finite.
        """
        turn = 2 * self.session.spec.streaming.lookaheads.index(lookahead)
        waiting = list(enumerate(corpus.utterances))
        running: list[tuple[int, _BothRules]] = []
        heard: dict[int, dict[str, Heard]] = {}
        seconds = 0.0
        while waiting or running:
            if waiting and len(running) < streams:
                index, utterance = waiting.pop(0)
                running.append((index, _BothRules.start(self, utterance, lookahead, index + turn)))
            members = [member for _, one in running for member in one.streams]
            for member, frames in zip(members, advance(self.session, [m.stream for m in members]), strict=True):
                member.frames.append(frames)
            for index, one in list(running):
                if one.ended():
                    running.remove((index, one))
                    heard[index] = {m.flush: self._heard(one.utterance, m, lookahead) for m in one.streams}
                    seconds += one.utterance.seconds
                    progress(seconds)
        return {rule: tuple(heard[i][rule] for i in range(len(heard))) for rule in FLUSH_RULES}

    def _heard(self, utterance: Utterance, member: _Member, lookahead: int) -> Heard:
        none = np.zeros((0, self.session.spec.streaming.d_model), np.float32)
        greedy, frames = member.stream.greedy, np.concatenate([none, *member.frames])
        return Heard(
            utterance.id,
            tuple(greedy.tokens),
            tuple(greedy.token_frames),
            detokenize(self.pieces, greedy.tokens),
            len(frames),
            frames[sample_positions(len(frames), lookahead)],
            member.packet_ms,
        )


@dataclass
class _Member:
    flush: str
    packet_ms: int
    stream: Stream
    frames: list[np.ndarray] = field(default_factory=list)


@dataclass
class _BothRules:
    """The rules differ only in the windows cut at the end, so all windows before it are run once for both."""

    utterance: Utterance
    streams: list[_Member]  # the first alone, until the common windows are done; then one for each rule
    other: _Member

    @staticmethod
    def start(runner: CorpusRunner, utterance: Utterance, lookahead: int, turn: int) -> _BothRules:
        samples = utterance.samples()
        members = []
        for offset, flush in enumerate(FLUSH_RULES):
            packet_ms = PACKETS_MS[(turn + offset) % len(PACKETS_MS)]
            stream = Stream(runner.session, runner.filterbank, lookahead, flush)
            size = packet_ms * utterance.sample_rate_hz // 1000
            for at in range(0, len(samples), size):
                stream.push(samples[at : at + size])
            members.append(_Member(flush, packet_ms, stream))
        first, other = members
        _check_same_chunks(utterance, first, other)
        other.stream.chunks.clear()
        one = _BothRules(utterance, [first], other)
        if not first.stream.chunks:  # shorter than one window
            one._part()
        return one

    def ended(self) -> bool:
        """Whether all is run; goes on to the two endings when the common windows are done."""
        if any(member.stream.chunks for member in self.streams):
            return False
        if len(self.streams) == len(FLUSH_RULES):
            return True
        self._part()
        return not any(member.stream.chunks for member in self.streams)

    def _part(self) -> None:
        first, other = self.streams[0], self.other
        other.stream.encoder_state = first.stream.encoder_state
        other.stream.greedy = copy.deepcopy(first.stream.greedy)
        other.frames = list(first.frames)
        self.streams = [first, other]
        for member in self.streams:
            member.stream.close()


def _check_same_chunks(utterance: Utterance, first: _Member, other: _Member) -> None:
    a, b = first.stream.chunks, other.stream.chunks
    pairs = zip(a, b, strict=False)
    if len(a) != len(b) or not all(x.length == y.length and np.array_equal(x.mel, y.mel) for x, y in pairs):
        raise ArtifactError(
            f"The front end depends on how {utterance.id} is cut into packets.",
            expected=f"the same chunks from packets of {first.packet_ms} and {other.packet_ms} ms",
            found=f"{len(a)} and {len(b)} chunks, not all equal",
            todo="report this as a bug of nemoport/frontend.py or nemoport/stream.py",
        )
