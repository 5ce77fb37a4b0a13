"""Runs one utterance by both flush rules at the cost of one run, fed in packets of two sizes.

An offline model has one flush rule, and is fed packets of one size.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np

from nemoport.chunker import flush_rules
from nemoport.errors import ArtifactError
from nemoport.session import Session
from nemoport.spec import Lookahead
from nemoport.speech.corpus import Utterance
from nemoport.stream import Stream

PACKETS_MS = (1, 10, 37, 100, 560, 5000)  # 37: no multiple of anything


@dataclass
class Member:
    """A stream over one utterance by one flush rule. frames: f32 [T', d_model] of each chunk that was run."""

    flush: str
    packet_ms: int
    stream: Stream
    frames: list[np.ndarray] = field(default_factory=list)


@dataclass
class FlushPair:
    """One utterance by each flush rule of its model.

    The rules differ only in the chunks that are cut at the end, so the chunks before it are run once: by the first member,
    whose state is then copied to the others.
    """

    utterance: Utterance
    running: list[Member]  # the first member alone until the common chunks are run, then all
    waiting: list[Member]  # the others until then
    closed: bool = False  # whether the last chunks are cut

    @staticmethod
    def start(
        session: Session,
        filterbank: np.ndarray,
        utterance: Utterance,
        lookahead: Lookahead,
        turn: int,
        prompt: int | None = None,
    ) -> FlushPair:
        """Cuts the utterance into chunks and runs none of them.

        filterbank: f32 [n_mels, n_fft // 2 + 1]. turn: place in PACKETS_MS of the first rule's packet size; the second rule
        takes the next. prompt: the slot of the language, for a model with a prompt. Raises ArtifactError if the chunks depend
        on the packet size.
        """
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
        pair = FlushPair(utterance, [first], others)
        if not first.stream.chunks:  # shorter than one chunk
            pair._close()
        return pair

    def ended(self) -> bool:
        """Whether every chunk is run. Cuts the last chunks by each rule when the common ones are run."""
        if any(member.stream.chunks for member in self.running):
            return False
        if self.closed:
            return True
        self._close()
        return not any(member.stream.chunks for member in self.running)

    def _close(self) -> None:
        first = self.running[0]
        for other in self.waiting:
            other.stream.encoder_state = copy.deepcopy(first.stream.encoder_state)  # a state is good for one continuation
            other.stream.decoded = copy.deepcopy(first.stream.decoded)
            other.frames = list(first.frames)
        self.running, self.waiting, self.closed = [first, *self.waiting], [], True
        for member in self.running:
            member.stream.close()


def _check_same_chunks(utterance: Utterance, first: Member, other: Member) -> None:
    a, b = first.stream.chunks, other.stream.chunks
    pairs = zip(a, b, strict=False)
    if len(a) != len(b) or not all(x.length == y.length and np.array_equal(x.mel, y.mel) for x, y in pairs):
        raise ArtifactError(
            f"The front end depends on how {utterance.id} is cut into packets.",
            expected=f"the same chunks from packets of {first.packet_ms} and {other.packet_ms} ms",
            found=f"{len(a)} and {len(b)} chunks, not all equal",
            todo="report this as a bug of nemoport/frontend.py or nemoport/chunker.py",
        )
