"""Calibration streams: calibration audio run through the fp32 graph as live streams are, with its caches carried along.

A static range must cover the activations that occur in use: with caches full of real speech, at every lookahead, in
speech, in pauses and in silence. So utterances are joined into streams several left contexts long, the streams take
the checkpoint's lookaheads in turn, and each lookahead also gets a stream that falls silent, and one that comes through
a telephone: without its band limit in the calibration, smoothed channels that are quiet in studio speech are clipped in
a call (multilingual reference: encoder frames at 22.8 dB there, with these streams 29.6; 0.1 dB better on the rest).

Warm-up rule: a chunk is collected when the caches it reads are full. Exempt are the streams that fall silent, which are
collected from their first chunk on, because users' streams start cold too. Measured on the reference checkpoint: what
a cold start reaches beyond the ranges of warm chunks is mostly due to other audio (17 of 54 tensors; the same audio with
full caches exceeds them in 18), but 13 exceed both, by up to 21 %, attention outputs first: they average over fewer frames.

An offline encoder has no caches. It is run on each stream as one recording of half a minute, and on one of two minutes.

A model with a prompt is run on streams of one language each, on equally many of every language; those of a language with
less audio are used again. The prompt is the slot of the language in the first round of streams, in the next the slot of
"auto", where the dictionary has it, under which the model detects the language itself; and so on in turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice

import numpy as np

from nemoport.artifact import Artifact
from nemoport.chunker import Chunk, make_chunker, stacked
from nemoport.errors import CorpusError
from nemoport.prompt import AUTO
from nemoport.runtimes.onnxruntime.session import OnnxSession
from nemoport.session import EncoderState, Session, looking
from nemoport.spec import Lookahead, ModelSpec
from nemoport.speech.conditions import telephone
from nemoport.speech.corpus import Corpus, prompts

OFFLINE_CONTEXT_S = 7.5
TOGETHER = 4  # streams of a batch: their caches and what is collected of a chunk take 0.2 GB at 0.6B
LONGEST_CONTEXTS = 16.0  # of an offline encoder's one long recording


@dataclass(frozen=True)
class StreamParameters:
    """How calibration audio is streamed. A context is the encoder's left context: 70 frames, 5.6 s, as published; for an
    encoder with full context, 7.5 s.

    `cold` is the fault that these streams exist to avoid, kept for comparison only: every chunk starts from empty
    caches, as if it stood alone, and none is dropped.
    """

    contexts_per_stream: float = 4.0  # so that at most a quarter of a stream is warm-up
    silence_contexts: float = 1.25  # long enough that no speech is left in the caches
    noise_rms: float = 1e-3  # -60 dB of full scale: a quiet room
    telephone: bool = True  # one stream more at each lookahead, as long as there is other speech, through a telephone
    min_cache_fill: float = 1.0  # chunks whose cache holds less than this share of a context are not collected
    cold: bool = False


@dataclass(frozen=True)
class Segment:
    """A stretch of a stream: an utterance of the corpus, or so many samples of silence or noise."""

    kind: str  # "speech", "telephone" (speech over one), "silence", "noise"
    utterance: int = 0
    samples: int = 0


@dataclass(frozen=True)
class StreamPlan:
    """One stream before it is run: its lookahead (nemoport/spec.py), its audio, its prompt."""

    lookahead: Lookahead
    segments: tuple[Segment, ...]
    collect_start: bool = False  # collect from the first chunk on, whatever the caches hold
    prompt: int | None = None  # slot of the language


class CalibrationStreams:
    """The streams of a corpus, by plan. Audio is read when a stream is run, the same each time; only the plans are kept."""

    def __init__(self, corpus: Corpus, spec: ModelSpec, filterbank: np.ndarray, parameters: StreamParameters):
        self.corpus, self.spec, self.parameters = corpus, spec, parameters
        self._filterbank = filterbank
        self._prompts = prompts(corpus, spec)  # the slot of each utterance's language
        self.plans = self._plan()

    @staticmethod
    def of(corpus: Corpus, artifact: Artifact, parameters: StreamParameters) -> CalibrationStreams:
        """The streams for the encoder of `artifact`. Raises CorpusError (too little audio, unknown languages)."""
        return CalibrationStreams(corpus, artifact.spec, artifact.filterbank(), parameters)

    def chunks(self, plan: StreamPlan) -> Iterator[Chunk]:
        """Cuts one stream into its full windows. The rest behind the last one is left out: padding would enter the ranges."""
        cut = make_chunker(self.spec, self._filterbank, plan.lookahead, "full")
        for segment in plan.segments:
            yield from cut.feed(self.samples(segment))
        if self.spec.streaming is None:  # its one window holds nothing but the recording
            yield from cut.finish()

    def initial_state(self, session: Session, plan: StreamPlan) -> EncoderState:
        """The encoder state of a fresh stream, with the prompt of this plan."""
        return looking(session.initial_state(1, [] if plan.prompt is None else [plan.prompt]), plan.lookahead)

    def samples(self, segment: Segment) -> np.ndarray:
        """The audio of a segment: f32 [n], mono, at the model's rate."""
        if segment.kind in ("speech", "telephone"):
            speech = self.corpus.utterances[segment.utterance].samples()
            return speech if segment.kind == "speech" else telephone(speech, self.spec.frontend.sample_rate_hz)
        if segment.kind == "silence":
            return np.zeros(segment.samples, np.float32)
        noise = np.random.default_rng(0).standard_normal(segment.samples)
        return (self.parameters.noise_rms * noise).astype(np.float32)

    def run(self, session: OnnxSession, plan: StreamPlan) -> Iterator[bool]:
        """Runs one stream and yields after each chunk whether its activations are to be collected."""
        cold, needed = self.parameters.cold, 0.0  # encoder frames in the cache
        if self.spec.streaming is not None and not (cold or plan.collect_start):
            needed = self.parameters.min_cache_fill * self.spec.streaming.left_context_enc_frames
        state = self.initial_state(session, plan)
        for chunk in self.chunks(plan):
            filled = int(state.length[0])
            _, _, after = session.encode(chunk.mel[None], np.array([chunk.length], np.int64), state)
            yield filled >= needed
            if not cold:
                state = after

    @property
    def together(self) -> list[list[StreamPlan]]:
        """The plans in batches of at most TOGETHER streams that are collected from the same chunk on; the batches take the
        lookaheads in turn, from the longest on. Each plan alone for an offline encoder, whose recordings differ in length."""
        if self.spec.streaming is None:
            return [[plan] for plan in self.plans]
        lookaheads = sorted(self.spec.streaming.lookaheads, reverse=True)
        kinds = [[plan for plan in self.plans if plan.collect_start == start] for start in (False, True)]
        batches = [kind[at : at + TOGETHER] for kind in kinds for at in range(0, len(kind), TOGETHER)]
        turns = zip(batches, cycle(lookaheads), strict=False)
        return [[replace(plan, lookahead=lookahead) for plan in batch] for batch, lookahead in turns]

    def run_together(self, session: OnnxSession, batch: Sequence[StreamPlan]) -> Iterator[bool]:
        """Runs streams in one batch, which those that have ended leave, and yields as `run`. batch: one of `together`."""
        if len(batch) == 1:
            yield from self.run(session, batch[0])
            return
        fill = 0.0 if batch[0].collect_start else self.parameters.min_cache_fill
        needed = fill * self.spec.require_streaming().left_context_enc_frames
        state = session.initial_state(len(batch), [plan.prompt for plan in batch if plan.prompt is not None])
        streams = [self.chunks(plan) for plan in batch]
        while True:
            chunks = [next(stream, None) for stream in streams]
            going = [i for i, chunk in enumerate(chunks) if chunk is not None]
            if not going:
                return
            if len(going) < len(streams):
                rows = session.unstack(state)
                state, streams = session.stack([rows[i] for i in going]), [streams[i] for i in going]
            filled = int(state.length.min())
            _, _, state = session.encode(*stacked([chunk for chunk in chunks if chunk is not None]), state)
            yield filled >= needed

    def _plan(self) -> tuple[StreamPlan, ...]:
        lookaheads = self.spec.lookaheads[:2] if self.spec.buffered else self.spec.lookaheads  # of windows the default
        groups = self._groups()
        count = max(len(groups), len(lookaheads))  # a small corpus is used again at the other lookaheads
        spoken = [
            StreamPlan(lookaheads[i % len(lookaheads)], group, prompt=prompt)
            for i, (group, prompt) in enumerate(islice(cycle(groups), count))
        ]
        samples = int(self.parameters.silence_contexts * self._context_seconds * self.spec.frontend.sample_rate_hz)
        pause = (Segment("silence", samples=samples), Segment("noise", samples=samples))
        speech = [Segment("speech", i) for i in range(len(self.corpus.utterances))]
        fading = [  # speech, silence, noise, speech; other utterances at each lookahead
            StreamPlan(
                lookahead,
                (speech[at := 2 * i % len(speech)], *pause, speech[(2 * i + 1) % len(speech)]),
                True,
                self._prompts[at],
            )
            for i, lookahead in enumerate(lookaheads)
        ]
        narrow = [  # each of other speech, so fewer of a small corpus: they would be most of it
            StreamPlan(lookahead, tuple(replace(s, kind="telephone") for s in group), prompt=prompt)
            for lookahead, (group, prompt) in zip(lookaheads, reversed(groups), strict=False)
            if self.parameters.telephone
        ]
        longest = [] if self.spec.streaming else [StreamPlan(None, tuple(self._first(LONGEST_CONTEXTS)))]
        return (*spoken, *fading, *narrow, *longest)

    def _first(self, contexts: float) -> Iterator[Segment]:
        """Utterances from the corpus's beginning, `contexts` contexts long, or all if the corpus is shorter."""
        seconds = 0.0
        for i, utterance in enumerate(self.corpus.utterances):
            if seconds >= contexts * self._context_seconds:
                return
            yield Segment("speech", i)
            seconds += utterance.seconds

    def _groups(self) -> list[tuple[tuple[Segment, ...], int | None]]:
        """Groups of consecutive utterances of one language, each at least `contexts_per_stream` long (the last takes what
        is left over), and the prompt slot of each group."""
        spec = self.spec.prompt
        if spec is None:
            return [(group, None) for group in self._joined(range(len(self.corpus.utterances)))]
        members: dict[str, list[int]] = {}
        for i, utterance in enumerate(self.corpus.utterances):
            members.setdefault(utterance.language, []).append(i)
        spoken = [self._joined(indices) for indices in members.values()]
        rounds = range(max(map(len, spoken)))
        auto = spec.slot(AUTO) if AUTO in spec.languages else None
        return [
            (
                groups[number % len(groups)],
                auto if number % 2 and auto is not None else self._prompts[groups[0][0].utterance],
            )
            for number in rounds
            for groups in spoken
        ]

    def _joined(self, utterances: Sequence[int]) -> list[tuple[Segment, ...]]:
        """`_groups` of the utterances of one language. Raises CorpusError if there are not enough for one group."""
        wanted = self.parameters.contexts_per_stream * self._context_seconds
        found = sum(self.corpus.utterances[i].seconds for i in utterances)
        if found < wanted:
            language = self.corpus.utterances[utterances[0]].language if self.spec.prompt else ""
            raise CorpusError(
                f"{self.corpus.path} is too short for calibration.",
                expected=f"at least {wanted:.1f} s of speech{f' in {language}' if language else ''}, so that the encoder's "
                "caches fill",
                found=f"{found:.1f} s in {len(utterances)} utterances",
                todo="add utterances to the manifest; several minutes by several speakers are good",
            )
        groups, current, seconds = [], [], 0.0
        for i in utterances:
            current.append(Segment("speech", i))
            seconds += self.corpus.utterances[i].seconds
            if seconds >= wanted:
                groups.append(tuple(current))
                current, seconds = [], 0.0
        groups[-1] += tuple(current)
        return groups

    @property
    def _context_seconds(self) -> float:
        if self.spec.streaming is None:
            return OFFLINE_CONTEXT_S
        return self.spec.streaming.left_context_enc_frames * self.spec.frame_seconds
