"""One utterance by both flush rules at the cost of one, fed in packets of two sizes; by an offline model, which has one
rule, in packets of one size."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np

from nemoport.errors import ArtifactError
from nemoport.session import Session
from nemoport.speech.corpus import Utterance
from nemoport.stream import Stream, flush_rules

PACKETS_MS = (1, 10, 37, 100, 560, 5000)  # 37: no multiple of anything


@dataclass
class Member:
    """One utterance by one rule; frames: f32 [T', d_model] per window."""

    flush: str
    packet_ms: int
    stream: Stream
    frames: list[np.ndarray] = field(default_factory=list)


@dataclass
class FlushPair:
    """The rules differ only in the windows cut at the end, so all windows before it are run once for both."""

    utterance: Utterance
    streams: list[Member]  # the first alone, until the common windows are done; then one for each rule
    others: list[Member]
    parted: bool = False

    @staticmethod
    def start(
        session: Session,
        filterbank: np.ndarray,
        utterance: Utterance,
        lookahead: int | None,
        turn: int,
        prompt: int | None = None,
    ) -> FlushPair:
        samples = utterance.samples()
        members = []
        for offset, flush in enumerate(flush_rules(session.spec)):
            packet_ms = PACKETS_MS[(turn + offset) % len(PACKETS_MS)]
            stream = Stream(session, filterbank, lookahead, flush, prompt)
            size = packet_ms * utterance.sample_rate_hz // 1000
            for at in range(0, len(samples), size):
                stream.push(samples[at : at + size])
            members.append(Member(flush, packet_ms, stream))
        first, *others = members
        for other in others:
            _check_same_chunks(utterance, first, other)
            other.stream.chunks.clear()
        one = FlushPair(utterance, [first], others)
        if not first.stream.chunks:  # shorter than one window
            one._part()
        return one

    def ended(self) -> bool:
        """Whether all is run; goes on to the two endings when the common windows are done."""
        if any(member.stream.chunks for member in self.streams):
            return False
        if self.parted:
            return True
        self._part()
        return not any(member.stream.chunks for member in self.streams)

    def _part(self) -> None:
        first = self.streams[0]
        for other in self.others:
            other.stream.encoder_state = copy.deepcopy(first.stream.encoder_state)  # a state is good for one continuation
            other.stream.decoded = copy.deepcopy(first.stream.decoded)
            other.frames = list(first.frames)
        self.streams, self.parted = [first, *self.others], True
        for member in self.streams:
            member.stream.close()


def _check_same_chunks(utterance: Utterance, first: Member, other: Member) -> None:
    a, b = first.stream.chunks, other.stream.chunks
    pairs = zip(a, b, strict=False)
    if len(a) != len(b) or not all(x.length == y.length and np.array_equal(x.mel, y.mel) for x, y in pairs):
        raise ArtifactError(
            f"The front end depends on how {utterance.id} is cut into packets.",
            expected=f"the same chunks from packets of {first.packet_ms} and {other.packet_ms} ms",
            found=f"{len(a)} and {len(b)} chunks, not all equal",
            todo="report this as a bug of nemoport/frontend.py or nemoport/stream.py",
        )
