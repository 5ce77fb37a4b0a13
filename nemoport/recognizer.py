"""The Python API: opens an artifact, transcribes files and live audio."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from nemoport.artifact import Artifact
from nemoport.audio import open_audio
from nemoport.beam import BeamSearch
from nemoport.buffered import ChunkContext
from nemoport.chunker import make_chunker
from nemoport.confidence import DEFAULT_CONFIDENCE, DEFAULT_MEASURE, Confidence
from nemoport.errors import AudioError, UsageError
from nemoport.hub_package import variant_folder
from nemoport.inputs import Audio, Named, Utterance, named, source_of
from nemoport.language_model import ArpaFile
from nemoport.long_audio import Timed
from nemoport.lookahead import chosen_lookahead, chosen_window
from nemoport.prompt import slot_of
from nemoport.runtimes import open_session
from nemoport.search import live_search, search_of, without_reset
from nemoport.session import Session
from nemoport.spec import Lookahead
from nemoport.stream import Stream
from nemoport.token_mask import allowed_tokens, kept_pieces, restricted
from nemoport.tokens import Spelling, detokenize, read_tokens, split_tags
from nemoport.transcription import Hypothesis, Request, pass_seconds, transcribe, trimming
from nemoport.utterances import EndRule, Utterances
from nemoport.vad import SpokenUtterances, silero_vad
from nemoport.words import Segment, WordTimes, punctuation_of, words_of


class Recognizer:
    """An artifact opened in a runtime. One recognizer serves any number of streams."""

    def __init__(
        self,
        session: Session,
        filterbank: np.ndarray,
        pieces: list[str],
        lookahead: Lookahead,
        flush: str = "full",
        pass_s: float | None = None,
        language: str | None = None,
        search: BeamSearch | None = None,
        confidence: Confidence = DEFAULT_CONFIDENCE,
        trim_silence: bool = False,
        longest_s: float | None = None,
        window: ChunkContext | None = None,
    ):
        """filterbank: f32 [n_mels, n_fft // 2 + 1]; pieces: of tokens.txt, by id; search: settings of a beam search, greedy
        without; confidence: measure of that in each token; longest_s: longest pass of graphs of fixed shapes; window: of a
        buffered model's live streams; lookahead: of recordings; the rest as in `open`. Raises UsageError for a language,
        lookahead, flush rule, pass or trimming that the model does not take."""
        make_chunker(session.spec, filterbank, lookahead, flush)  # refuses the last two now, not with the first recording
        self.session, self.lookahead, self.flush, self.window = session, lookahead, flush, window
        self.pass_s = pass_seconds(session.spec, pass_s, longest_s, lookahead)
        self.prompt, self.trim_silence = slot_of(session.spec.prompt, language), trimming(session.spec, trim_silence, lookahead)
        self._filterbank, self._pieces, self._search, self._confidence = filterbank, pieces, search, confidence
        self._punctuation = punctuation_of(pieces)

    @staticmethod
    def open(
        folder: Path | str,
        lookahead: int | None = None,
        *,
        flush: str = "full",
        provider: str = "cpu",
        threads: int = 0,
        pass_s: float | None = None,
        language: str | None = None,
        beam: int = 1,
        hotwords: Sequence[str] = (),
        hotword_boost: float | None = None,
        language_model: ArpaFile | None = None,
        confidence: str = DEFAULT_MEASURE,
        scripts: Sequence[str] = (),
        token_mask: Path | str | None = None,
        trim_silence: bool = False,
        reset: bool = True,
        variant: str | None = None,
        built_here: bool = False,
        chunk_frames: int | None = None,
        right_frames: int | None = None,
    ) -> Recognizer:
        """Opens a variant of a build or package.

        folder: the variant's folder; or a build or package; or a package on the Hub, as organisation/name@revision, of which one
            variant is downloaded. variant: of these, by default one of INT8 that is near to fp32 (nemoport/hub_package.py).
        lookahead: encoder frames of right context, by default those of config.json; None for an offline model.
        flush: rule for the last frames of a stream, "full" or "nemo" (nemoport/chunker.py).
        provider: the runtime's device. threads: 0 for the runtime's choice.
        pass_s: an offline model transcribes longer recordings in windows of so many seconds, which overlap by 15, by default
            390; inf for one pass whatever the length; refused for a streaming model. Of graphs of fixed shapes the longest window
            is the longest pass.
        language: its name in the model's dictionary, such as de-DE or auto; required for a model with a prompt, refused for any
            other.
        beam: paths of the search (nemoport/beam.py), 1 for greedy; in a streaming model, what the best path has is final after
            `FINAL_S`.
        hotwords: phrases that decoding favours, with or without a beam. hotword_boost: what each token of a hotword adds to the
            log score, by default 1.5. language_model: of words, for the beam search of a CTC model.
        confidence: the measure of it, by its name in nemoport.confidence.MEASURES.
        scripts: names of Unicode scripts, as Latin, whose letters alone may be emitted. token_mask: a file of the lines of
            tokens.txt that may be (nemoport/token_mask.py).
        trim_silence: `transcribe` of an offline model leaves silence around a recording out (nemoport/trimming.py).
        reset: whether the decoder begins anew behind an end of utterance (nemoport/events.py); False is refused for a model that
            marks none.
        chunk_frames, right_frames: encoder frames that each window of a buffered model decodes, and of its right context; both
            together are the latency. Live streams have 7 of either by default, recordings full context unless one is given.
        built_here: this machine built the variant, so that files which can hold code (Runtime.holds_code) are opened.

        Raises ArtifactError for a damaged folder, UsageError for a lookahead, provider, language, measure or script that does not
        exist, and for a beam, hotwords or a mask that cannot be used.
        """
        if threads < 0:
            raise UsageError("Threads cannot be less than none.", expected="0 or more", found=str(threads), todo="leave it out")
        artifact = Artifact.open(variant_folder(folder, variant))
        artifact = artifact if reset else replace(artifact, spec=without_reset(artifact.spec))
        window = chosen_window(artifact, chunk_frames, right_frames)
        by_window = chunk_frames is not None or right_frames is not None
        looks = window if by_window else chosen_lookahead(artifact, lookahead)
        pieces = read_tokens(artifact.shared / "tokens.txt")
        allowed = allowed_tokens(pieces, scripts, token_mask)
        search = search_of(artifact.spec, kept_pieces(pieces, allowed), beam, hotwords, hotword_boost, language_model)
        return Recognizer(
            restricted(open_session(artifact, provider, threads, built_here=built_here), allowed),
            artifact.filterbank(),
            pieces,
            looks,
            flush,
            pass_s,
            language,
            search,
            Confidence(confidence),
            trim_silence,
            artifact.longest_s,
            window,
        )

    @property
    def sample_rate_hz(self) -> int:
        """Sample rate of the audio that the model takes."""
        return self.session.spec.frontend.sample_rate_hz

    @property
    def is_live(self) -> bool:
        """Whether a live stream emits tokens before it ends."""
        return bool(self.session.spec.streaming or self.window)

    def stream(self, language: str | None = None) -> Stream:
        """Returns a live stream: its `feed(samples)` and `finish()` return new token ids; `text(stream.tokens)` spells them.

        language: by default the recognizer's. Raises UsageError for a language that the model's dictionary does not have.
        """
        return self._stream(self.window or self.lookahead, language)

    def _stream(self, lookahead: Lookahead, language: str | None) -> Stream:
        spec = self.session.spec
        prompt = self.prompt if language is None else slot_of(spec.prompt, language)
        search = live_search(self._search, spec) if isinstance(lookahead, ChunkContext) else self._search
        return Stream(self.session, self._filterbank, lookahead, self.flush, prompt, search, self._confidence)

    def text(self, tokens: Iterable[int]) -> str:
        """Decodes token ids to text, without events and the language tags that a model with a prompt emits."""
        return self._decode_text(tokens)[0]

    def spelling(self) -> Spelling:
        """Returns what spells the tokens of one stream as they become final, without language tags."""
        return Spelling(self._pieces, with_tags=not self.session.spec.prompt)

    def word_times(self) -> WordTimes:
        """Returns what puts the tokens of one stream together to words, as they become final."""
        return WordTimes(self._pieces, self._punctuation, self.session.spec)

    def utterances(self, rule: EndRule | None = None, language: str | None = None) -> Utterances | SpokenUtterances:
        """Returns a live stream that gives its utterances, with words and times, as they end. rule: when one ends, by default
        EndRule(); language: as of `stream`. Those of an offline model are cut by Silero VAD (nemoport/vad.py). Raises
        UsageError."""
        spec, rule = self.session.spec, rule or EndRule()
        if self.is_live:
            return Utterances(self.stream(language), self.word_times(), spec, rule)
        rule = replace(rule, longest_s=min(rule.longest_s, self.pass_s))
        return SpokenUtterances(partial(self._spoken, language), silero_vad(self.sample_rate_hz), rule)

    def _spoken(self, language: str | None, samples: np.ndarray, start_s: float) -> Segment | None:
        (found,) = self.transcribe([("", samples, language)])
        return Segment(found.words).shift(start_s) if found.words else None

    def languages(self, tokens: Iterable[int]) -> tuple[str, ...]:
        """Returns the languages of the tags among the tokens, in order."""
        return self._decode_text(tokens)[1]

    def _decode_text(self, tokens: Iterable[int]) -> tuple[str, tuple[str, ...]]:
        text = detokenize(self._pieces, list(tokens))
        return split_tags(text) if self.session.spec.prompt else (text, ())

    def transcribe_file(self, path: Path | str, *, channel: int | None = None) -> Hypothesis:
        """Transcribes one audio file, which is read in blocks. channel: the one to transcribe, from 0; None for the average of
        all. Raises AudioError."""
        return next(self.transcribe([(str(path), open_audio(path, self.sample_rate_hz, channel=channel))]))

    def transcribe(
        self,
        utterances: Iterable[Utterance] | Audio,
        *,
        streams: int = 1,
        packet_samples: int = 0,
        failed: Callable[[str, AudioError], None] | None = None,
    ) -> Iterator[Hypothesis]:
        """Transcribes recordings, up to `streams` at once in one batch: as one ends, the next one joins. Yields a hypothesis for
        each, in order of ending.

        utterances: paths, arrays f32 [n] (mono, at `sample_rate_hz`), or pairs (id, path or array), or with a language
        (id, path or array, language); a path or an array alone is one. Files are read in blocks, as they are transcribed.
        packet_samples: samples that are fed at a time, 0 for as many as suit the model. failed: is called with the id and the
        error of each recording that cannot be used, and the others go on. Without it that raises AudioError. Raises UsageError
        for fewer than one stream, for other things than these, and for a language that the model does not have.
        """
        if streams < 1:
            todo = "leave it out for one after another"
            raise UsageError("Streams cannot be fewer than one.", expected="1 or more", found=str(streams), todo=todo)
        requests = self._requests(named(utterances), failed)
        done = transcribe(self.session, requests, self.pass_s, streams, packet_samples, self.trim_silence, failed)
        return (self._hypothesis(r.id, r.tokens, r.length, r.work_seconds) for r in done)

    def _requests(self, utterances: Iterator[Named], failed: Callable[[str, AudioError], None] | None) -> Iterator[Request]:
        for name, audio, language in utterances:
            try:
                yield name, source_of(audio, self.sample_rate_hz), partial(self._stream, self.lookahead, language)
            except AudioError as error:
                if not failed:
                    raise
                failed(name, error)

    def hypothesis(self, stream: Stream, *, id: str = "", samples: int = 0, work_seconds: float = 0.0) -> Hypothesis:
        """Returns what a live stream has transcribed so far, with what is not final. samples: that it was fed; work_seconds: as
        the caller measured it."""
        return self._hypothesis(id, stream.timed(), samples, work_seconds)

    def _hypothesis(self, id: str, timed: Timed, samples: int, work_seconds: float) -> Hypothesis:
        text, languages = self._decode_text(timed.tokens)
        words = words_of(timed, self._pieces, self._punctuation, self.session.spec)
        events = timed.events(self.session.spec.events)
        return Hypothesis.of(id, timed, text, languages, words, samples / self.sample_rate_hz, work_seconds, events)
