"""Runs an artifact over a corpus: both flush rules in one pass, several streams at once, packets of every size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nemoport.artifact import Artifact
from nemoport.chunker import flush_rules
from nemoport.session import Session
from nemoport.spec import Lookahead
from nemoport.speech.corpus import Corpus, Utterance, prompts
from nemoport.stream import advance
from nemoport.tokens import detokenize, read_tokens
from nemoport.validate.flush_pair import FlushPair, Member
from nemoport.validate.oracle import Record, sample_positions
from nemoport.words import Word, punctuation_of, words_of


@dataclass(frozen=True)
class UtteranceRun(Record):
    """The artifact's run of one utterance by one flush rule: what the oracle keeps of NeMo's, and how it was fed. words: with
    times and confidence."""

    id: str
    packet_ms: int
    words: tuple[Word, ...] = ()


@dataclass(frozen=True)
class CorpusRunner:
    """Runs one session over utterances. filterbank: f32 [n_mels, n_fft // 2 + 1]; pieces: text of each token."""

    session: Session
    filterbank: np.ndarray
    pieces: list[str]

    @cached_property
    def _punctuation(self) -> frozenset[str]:
        return punctuation_of(self.pieces)

    @staticmethod
    def open(artifact: Artifact, session: Session) -> CorpusRunner:
        """A runner of `session` with the artifact's filterbank and tokens. Raises ArtifactError if they cannot be read."""
        return CorpusRunner(session, artifact.filterbank(), read_tokens(artifact.shared / "tokens.txt"))

    def run(
        self, corpus: Corpus, lookahead: Lookahead, streams: int, progress: Callable[[float], None] = lambda seconds: None
    ) -> dict[str, tuple[UtteranceRun, ...]]:
        """Runs every utterance by every flush rule of the model: flush rule -> the runs, in the corpus's order.

        Up to `streams` utterances at once; one joins at each step until all places are taken, then as others end.
        Utterance u at the checkpoint's i-th lookahead is fed in packets of PACKETS_MS[u + 2i] and [u + 2i + 1] (by one
        rule and by the other, round the list): over four lookaheads each utterance is fed in every size.
        Each stream of a model with a prompt gets the prompt of its own utterance, whatever the others in the batch get.
        progress: called with the seconds of audio done. Raises ArtifactError if a packet size changes the chunks or if a
        number is not finite, CorpusError as `prompts`.
        """
        rules = flush_rules(self.session.spec)
        turn = 2 * self.session.spec.lookaheads.index(lookahead)
        waiting, slots = list(enumerate(corpus.utterances)), prompts(corpus, self.session.spec)
        running: list[tuple[int, FlushPair]] = []
        runs: dict[int, dict[str, UtteranceRun]] = {}
        seconds = 0.0
        while waiting or running:
            if waiting and len(running) < streams:
                index, utterance = waiting.pop(0)
                pair = FlushPair.start(self.session, self.filterbank, utterance, lookahead, index + turn, slots[index])
                running.append((index, pair))
            for flush in rules:  # apart: the two endings of an utterance are not two streams of a batch
                members = [member for _, pair in running for member in pair.running if member.flush == flush]
                for member, frames in zip(members, advance(self.session, [m.stream for m in members]), strict=True):
                    member.frames.append(frames)
            for index, pair in list(running):
                if pair.ended():
                    running.remove((index, pair))
                    runs[index] = {m.flush: self._run_of(pair.utterance, m, lookahead) for m in pair.running}
                    seconds += pair.utterance.seconds
                    progress(seconds)
        return {rule: tuple(runs[i][rule] for i in range(len(runs))) for rule in rules}

    def _run_of(self, utterance: Utterance, member: Member, lookahead: Lookahead) -> UtteranceRun:
        none = np.zeros((0, self.session.spec.encoder.d_model), np.float32)
        decoded, frames = member.stream.decoded, np.concatenate([none, *member.frames])
        return UtteranceRun(
            tokens=tuple(decoded.tokens),
            token_frames=tuple(decoded.token_frames),
            text=detokenize(self.pieces, decoded.tokens),
            enc_frames=len(frames),
            sampled_frames=frames[sample_positions(len(frames), lookahead)],
            id=utterance.id,
            packet_ms=member.packet_ms,
            words=words_of(member.stream.timed(), self.pieces, self._punctuation, self.session.spec),
        )
