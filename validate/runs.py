"""An artifact over a corpus: both flush rules in one pass, several streams at once, packets of every size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nemoport.artifact import Artifact
from nemoport.session import Session
from nemoport.speech.corpus import Corpus, Utterance, prompts
from nemoport.stream import advance, flush_rules
from nemoport.tokens import detokenize, read_tokens
from nemoport.validate.flush_pair import FlushPair, Member
from nemoport.validate.oracle import sample_positions


@dataclass(frozen=True)
class UtteranceRun:
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
        self, corpus: Corpus, lookahead: int | None, streams: int, progress: Callable[[float], None] = lambda seconds: None
    ) -> dict[str, tuple[UtteranceRun, ...]]:
        """flush rule -> what was heard, in the corpus's order.

        Up to `streams` utterances at once; one joins at each step until all places are taken, then as others end.
        Utterance u at the checkpoint's i-th lookahead is fed in packets of PACKETS_MS[u + 2i] and [u + 2i + 1] (by one
        rule and by the other, round the list): over four lookaheads each utterance sees every size.
        A model with a prompt is told what the corpus says, whatever its neighbours in the batch are told.
        Raises ArtifactError if a packet size changes the chunks or if a number is not finite, CorpusError as `prompts`.
        """
        rules = flush_rules(self.session.spec)
        turn = 2 * self.session.spec.lookaheads.index(lookahead)
        waiting, slots = list(enumerate(corpus.utterances)), prompts(corpus, self.session.spec)
        running: list[tuple[int, FlushPair]] = []
        heard: dict[int, dict[str, UtteranceRun]] = {}
        seconds = 0.0
        while waiting or running:
            if waiting and len(running) < streams:
                index, utterance = waiting.pop(0)
                begun = (self.session, self.filterbank, utterance, lookahead, index + turn, slots[index])
                running.append((index, FlushPair.start(*begun)))
            for flush in rules:  # apart: the two endings of an utterance are not two streams of a batch
                members = [member for _, one in running for member in one.streams if member.flush == flush]
                for member, frames in zip(members, advance(self.session, [m.stream for m in members]), strict=True):
                    member.frames.append(frames)
            for index, one in list(running):
                if one.ended():
                    running.remove((index, one))
                    heard[index] = {m.flush: self._heard(one.utterance, m, lookahead) for m in one.streams}
                    seconds += one.utterance.seconds
                    progress(seconds)
        return {rule: tuple(heard[i][rule] for i in range(len(heard))) for rule in rules}

    def _heard(self, utterance: Utterance, member: Member, lookahead: int | None) -> UtteranceRun:
        none = np.zeros((0, self.session.spec.encoder.d_model), np.float32)
        decoded, frames = member.stream.decoded, np.concatenate([none, *member.frames])
        return UtteranceRun(
            utterance.id,
            tuple(decoded.tokens),
            tuple(decoded.token_frames),
            detokenize(self.pieces, decoded.tokens),
            len(frames),
            frames[sample_positions(len(frames), lookahead)],
            member.packet_ms,
        )
