"""Buffered streaming (parakeet-unified): windows of audio, each with a front end and an attention of its own. Held against NeMo's
own loop on a small random checkpoint of NeMo's class, and each part of it shown to matter."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nemoport import chunker
from nemoport.artifact import Artifact
from nemoport.buffered import ATT_CONTEXT, BufferedSpec, ChunkContext
from nemoport.chunker import BufferedChunker, make_chunker
from nemoport.errors import UsageError
from nemoport.evaluation.identity import Settings
from nemoport.export.build import export_checkpoint
from nemoport.export.checkpoint import read_checkpoint
from nemoport.export.unsupported import unsupported
from nemoport.frontend import LogMel, mel_filterbank
from nemoport.recognizer import Recognizer
from nemoport.reference.random_checkpoint import pseudo_speech
from nemoport.runtimes.onnxruntime.session import OnnxSession
from nemoport.score import count_all
from nemoport.spec import ModelSpec, OfflineSpec
from nemoport.speech.corpus import read_corpus
from nemoport.stream import Stream, advance
from nemoport.tokens import read_tokens
from nemoport.validate import nemo, nemo_buffered, nemo_runs
from nemoport.validate.context import Context
from nemoport.validate.finite import FiniteSession
from nemoport.validate.gates import run_gate
from nemoport.validate.limits import limits_of
from nemoport.validate.modes import mode_of
from nemoport.validate.oracle import Oracle, Record, sample_positions
from nemoport.validate.runs import CorpusRunner

DEFAULT, LONG, SHORT = ChunkContext(70, 7, 7), ChunkContext(70, 13, 13), ChunkContext(70, 1, 0)
FRAME = 1280  # samples
AUDIO = Path(__file__).parent.parent / "reference" / "audio"
# Out of step with the chunks; ends with a window; a single window; ends with a chunk whose rest is less than a frame.
LENGTHS = {"long": 9.37, "with a window": 112 * 0.08, "one window": 0.9, "with less than a frame": 3.613}


@pytest.fixture(scope="module")
def checkpoint(random_checkpoint):
    return read_checkpoint(str(random_checkpoint("tiny-unified")))


@pytest.fixture(scope="module")
def model(checkpoint):
    return nemo.restore(checkpoint)


@pytest.fixture(scope="module")
def build(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("build")
    export_checkpoint(checkpoint, folder)
    return folder


@pytest.fixture(scope="module")
def session(build):
    return OnnxSession.open(Artifact.open(build / "fp32"), threads=1)


@pytest.fixture(scope="module")
def bank(build):
    return Artifact.open(build / "fp32").filterbank()


def run(session, bank, samples, context, packet=1601):
    """A stream after all its audio, and its encoder frames."""
    stream, frames = Stream(session, bank, context), [np.zeros((0, session.spec.encoder.d_model), np.float32)]
    for at in range(0, len(samples), packet):
        stream.push(samples[at : at + packet])
        while stream.chunks:
            frames += advance(session, [stream])
    stream.close()
    while stream.chunks:
        frames += advance(session, [stream])
    return stream, np.concatenate(frames)


def same(run, stream):
    return (list(run.tokens), list(run.token_frames)) == (stream.tokens, stream.decoded.token_frames)


@pytest.mark.parametrize("context", [DEFAULT, LONG, ChunkContext(70, 2, 2), ChunkContext(70, 7, 0), SHORT], ids=str)
@pytest.mark.parametrize("seconds", LENGTHS.values(), ids=LENGTHS)
def test_windows_are_nemos(session, bank, model, context, seconds):
    samples = pseudo_speech(2, seconds if context.chunk > 1 else min(seconds, 2.0))
    with nemo.exact(model), nemo.quiet():
        wanted = nemo_buffered.stream(model, samples, context)
    stream, frames = run(session, bank, samples, context)
    assert same(wanted, stream) and (wanted.tokens or seconds < 1)
    np.testing.assert_allclose(frames, wanted.frames, atol=3e-4)


def test_without_a_context_the_graph_is_nemos_offline_run(session, bank, model):
    samples = pseudo_speech(3, 5.0)
    with nemo.exact(model), nemo.quiet():
        wanted = nemo_runs.offline(model, samples, None)
    stream, frames = run(session, bank, samples, None)
    assert same(wanted, stream)
    np.testing.assert_allclose(frames, wanted.frames, atol=1e-4)
    mel, length = LogMel(session.spec.frontend, bank).whole(samples)[None], np.array([len(samples) // 160])
    state = session.initial_state(1)
    full, _, _ = session.encode(mel, length, replace(state, context=ChunkContext(-1, -1, -1)))
    plain, _, _ = session.encode(mel, length, state)
    np.testing.assert_array_equal(full, plain)


def test_as_it_is_nemos_script_repeats_the_first_chunk_without_right_context(model):
    """Why nemo_buffered.py reads where a chunk begins from the buffer's other count."""
    torch = pytest.importorskip("torch")
    from nemo.collections.asr.parts.utils.streaming_utils import ContextSize, StreamingBatchedAudioBuffer

    buffer = StreamingBatchedAudioBuffer(1, ContextSize(70 * FRAME, FRAME, 0), torch.float32, "cpu")
    starts = []
    for step in range(3):
        is_last = step == 2
        flags = torch.tensor([is_last])
        buffer.add_audio_batch_(torch.zeros(1, FRAME), torch.tensor([FRAME]), is_last, flags)
        starts.append((buffer.context_size.left // FRAME, int(buffer.context_size_batch.left) // FRAME))
    assert starts == [(0, 0), (0, 1), (1, 2)]


@pytest.mark.parametrize("packet", [1, 160, 1280, 17_000])
def test_packets_do_not_change_the_windows(session, bank, packet):
    samples = pseudo_speech(5, 1.0 if packet == 1 else 4.0)
    cut = [BufferedChunker(session.spec, bank, ChunkContext(70, 2, 1), "full") for _ in range(2)]
    whole = cut[0].feed(samples) + cut[0].finish()
    packets = [chunk for at in range(0, len(samples), packet) for chunk in cut[1].feed(samples[at : at + packet])]
    for one, other in zip(whole, packets + cut[1].finish(), strict=True):
        assert (one.length, one.kept, one.first) == (other.length, other.kept, other.first)
        np.testing.assert_array_equal(one.mel, other.mel)


def test_a_window_is_cut_as_soon_as_its_audio_is_there_and_all_frames_are_decoded_once(session, bank):
    cut, fed = BufferedChunker(session.spec, bank, DEFAULT, "full"), []
    for step in range(1, 141):
        fed += [(step, chunk.kept, chunk.length) for chunk in cut.feed(np.zeros(FRAME, np.float32))]
    assert fed[:2] == [(14, (0, 7), 14 * 8), (21, (7, 14), 21 * 8)] and fed[-1] == (140, (70, 77), 84 * 8)
    assert [step for step, *_ in fed] == list(range(14, 141, 7))
    (last,) = cut.finish()
    assert last.kept == (77, None) and last.length == 84 * 8


def test_streams_of_a_batch_are_as_alone(session, bank):
    audio = [pseudo_speech(seed, seconds) for seed, seconds in ((1, 3.0), (2, 7.3), (3, 1.0))]
    alone = [run(session, bank, samples, context)[0] for samples in audio for context in (DEFAULT, ChunkContext(70, 2, 2), None)]
    streams = [Stream(session, bank, context) for _ in audio for context in (DEFAULT, ChunkContext(70, 2, 2), None)]
    for stream, samples in zip(streams, (samples for samples in audio for _ in range(3)), strict=True):
        stream.push(samples)
        stream.close()
    while any(stream.chunks for stream in streams):
        advance(session, streams)
    assert [stream.tokens for stream in streams] == [stream.tokens for stream in alone]


class Damaged:
    """Ways in which a port of this loop is wrong."""

    @staticmethod
    def _attention(session, monkeypatch, changed):
        encode = session.encode

        def damaged(mel, lengths, state):
            return encode(mel, lengths, replace(state, context=state.context and changed(state.context)))

        monkeypatch.setattr(session, "encode", damaged, raising=False)

    @classmethod
    def mask_left_out(cls, session, monkeypatch):
        cls._attention(session, monkeypatch, lambda context: None)

    @classmethod
    def another_grid(cls, session, monkeypatch):
        cls._attention(session, monkeypatch, lambda context: ChunkContext(70, context.chunk + 1, context.right - 1))

    @staticmethod
    def normalisation_of_the_stream(session, monkeypatch):
        """Each window by the mean and the deviation of the first."""

        class Once(LogMel):
            def whole(self, samples):
                mel = LogMel(replace(self.spec, normalize="NA"), bank_of(session)).whole(samples)
                self.first = getattr(self, "first", mel)
                return ((mel - self.first.mean(1, keepdims=True)) / self.first.std(1, keepdims=True, ddof=1)).astype(np.float32)

        monkeypatch.setattr(chunker, "LogMel", Once)

    @staticmethod
    def state_not_carried(session, monkeypatch):
        step, shape = session.step, session.spec.decoding.state_shape(1)

        def forgetful(frames, tokens, state):
            blank = np.full_like(tokens, session.spec.decoding.blank_id)
            return step(frames, blank, (np.zeros((shape[0], len(tokens), shape[2]), np.float32),) * 2)

        monkeypatch.setattr(session, "step", forgetful, raising=False)


def bank_of(session):
    return mel_filterbank(session.spec.frontend)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder, rows = tmp_path_factory.mktemp("speech"), []
    for seed, seconds in ((2, 9.0), (3, 3.3)):
        path = folder / f"{seed}.wav"
        soundfile.write(path, pseudo_speech(seed, seconds), 16_000)
        rows.append({"audio_filepath": str(path), "text": "any words", "duration": seconds})
    (folder / "corpus.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return read_corpus(folder / "corpus.jsonl", 16_000)


@pytest.fixture(scope="module")
def oracle(corpus, model, checkpoint):
    runs = {}
    with nemo.exact(model), nemo.quiet():
        for lookahead in (None, DEFAULT, LONG):
            found = [nemo_runs.offline(model, u.samples(), None) for u in corpus.utterances]
            if lookahead:
                found = [nemo_buffered.stream(model, u.samples(), lookahead) for u in corpus.utterances]
            kept = [run.frames[sample_positions(len(run.frames), lookahead)] for run in found]
            runs[mode_of(lookahead), lookahead] = tuple(
                Record(run.tokens, run.token_frames, run.text, len(run.frames), frames)
                for run, frames in zip(found, kept, strict=True)
            )
    return Oracle("", Path(), runs)


def failing(build, checkpoint, corpus, oracle, session, bank):
    """The gates, of those that look at the windows, that a session fails; at the default window and the longest."""
    menus = replace(checkpoint.spec.buffered, chunks=(7, 13), rights=(7, 13))
    limits = limits_of("fp32").override(
        "numeric", max_abs=1e-3, max_rms_ratio=1e-4
    )  # random weights round more than trained ones
    context = Context(build / "fp32", limits, replace(checkpoint, spec=replace(checkpoint.spec, buffered=menus)), corpus, oracle)
    assert context.lookaheads == (None, DEFAULT, LONG)
    context.runner = CorpusRunner(FiniteSession(session), bank, read_tokens(context.artifact.shared / "tokens.txt"))
    results = [result for gate in ("tokens", "numeric", "words") for result in run_gate(gate, context)]
    return {(result.gate, result.case.rpartition(", ")[0]) for result in results if result.status == "fail"}


@pytest.mark.parametrize("damage", [None, *(name for name in vars(Damaged) if not name.startswith("_"))])
def test_the_gates_reject_a_damaged_loop(build, checkpoint, corpus, oracle, bank, damage, monkeypatch):
    session = OnnxSession.open(Artifact.open(build / "fp32"), threads=1)
    if damage:
        getattr(Damaged, damage)(session, monkeypatch)
    found = failing(build, checkpoint, corpus, oracle, session, bank)
    assert any(where in (str(DEFAULT), str(LONG)) for _, where in found) if damage else not found


def test_the_recognizer_streams_live_by_default_and_transcribes_files_with_full_context(build, session, bank):
    samples = pseudo_speech(4, 6.0)
    recognizer = Recognizer.open(build / "fp32", threads=1)
    assert (recognizer.lookahead, recognizer.window, recognizer.is_live) == (None, DEFAULT, True)
    live = recognizer.stream()
    early = [token for at in range(0, len(samples), 8000) for token in live.feed(samples[at : at + 8000])]
    assert early and early + live.finish() == run(session, bank, samples, DEFAULT)[0].tokens
    (whole,) = recognizer.transcribe([("", samples)])
    assert list(whole.tokens) == run(session, bank, samples, None)[0].tokens
    chosen = Recognizer.open(build / "fp32", threads=1, chunk_frames=2, right_frames=1)
    found = {one.id: list(one.tokens) for one in chosen.transcribe([("a", samples), ("b", samples[:40_000])], streams=2)}
    assert found["a"] == run(session, bank, samples, ChunkContext(70, 2, 1))[0].tokens
    assert found["b"] == run(session, bank, samples[:40_000], ChunkContext(70, 2, 1))[0].tokens
    ended = recognizer.utterances()
    assert [*ended.feed(samples), *ended.finish()]


def test_windows_that_cannot_be_are_refused(build, checkpoint):
    with pytest.raises(UsageError, match="5 frames of chunk") as error:
        Recognizer.open(build / "fp32", chunk_frames=5)
    assert "1, 2, 7, 13" in error.value.expected
    with pytest.raises(UsageError, match="5 frames of right context"):
        Recognizer.open(build / "fp32", right_frames=5)
    with pytest.raises(UsageError, match="no passes"):
        Recognizer.open(build / "fp32", chunk_frames=7, pass_s=60)
    with pytest.raises(UsageError, match="no silence"):
        Recognizer.open(build / "fp32", chunk_frames=7, trim_silence=True)
    with pytest.raises(UsageError, match="no caches"):
        export_checkpoint(checkpoint, build, layout="kv")
    offline = replace(checkpoint.spec, kind="offline-rnnt", buffered=None)
    with pytest.raises(UsageError, match="no buffered streaming"):
        make_chunker(offline, np.zeros((128, 257), np.float32), DEFAULT, "full")


def test_the_spec_is_the_configs(checkpoint, build):
    spec = checkpoint.spec
    assert (spec.kind, spec.lookaheads) == ("buffered-rnnt", (None, DEFAULT, LONG, SHORT))
    assert (DEFAULT.latency_enc_frames, DEFAULT.encoded_ratio, SHORT.encoded_ratio) == (14, 12.0, 71.0)
    assert spec.buffered == BufferedSpec((70,), (1, 2, 7, 13), (0, 1, 2, 3, 4, 7, 13))
    assert ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    section = Artifact.open(build / "fp32").config()["encoder"]["buffered"]
    assert (section["input"], section["default"], section["frame_samples"]) == (ATT_CONTEXT, [70, 7, 7], FRAME)
    assert isinstance(spec.offline, OfflineSpec) and spec.streaming is None


@pytest.mark.parametrize(
    "section, key, value, reason",
    [
        ("encoder", "att_chunk_context_size", None, "att_chunk_context_size is None"),
        ("encoder", "att_chunk_context_size", [[70], [0, 7], [7]], "att_chunk_context_size"),
        ("encoder", "att_chunk_context_size", [[70], [7]], "att_chunk_context_size"),
        ("encoder", "conv_context_size", "causal", "conv_context_size is 'causal'"),
        ("encoder", "att_context_style", "regular", "att_chunk_context_size is"),
        ("preprocessor", "window_stride", 0.0101, "window_stride is 161 samples"),
        ("loss", "loss_name", "tdt", "a buffered TDT model"),
    ],
)
def test_what_is_not_of_the_kind_is_refused_by_its_name(checkpoint, section, key, value, reason):
    config = {**checkpoint.config, section: {**(checkpoint.config.get(section) or {}), key: value}}
    assert not unsupported(checkpoint.config)
    assert reason in "; ".join(unsupported(config))


def test_the_checkpoint_of_real_speech_is_transcribed_as_nemo_does(tmp_path):
    from nemoport.reference import unified

    unified.write(path := tmp_path / "unified.nemo")
    checkpoint = read_checkpoint(str(path))
    folder = export_checkpoint(checkpoint, tmp_path / "build").folder
    asr, errors, words = nemo.restore(checkpoint), 0, 0
    for utterance in read_corpus(AUDIO / "eval-tdt.jsonl", 16_000).utterances[5:45:10]:
        for chunk, right in ((None, None), (7, 7), (2, 2)):
            recognizer = Recognizer.open(folder, threads=1, chunk_frames=chunk, right_frames=right)
            (found,) = recognizer.transcribe([("", utterance.samples())])
            with nemo.exact(asr), nemo.quiet():
                if recognizer.lookahead is None:
                    wanted = nemo_runs.offline(asr, utterance.samples(), None)
                else:
                    wanted = nemo_buffered.stream(asr, utterance.samples(), recognizer.lookahead)
            assert (found.tokens, found.text) == (wanted.tokens, wanted.text)
            (count,) = count_all([utterance.text], [found.text], [utterance.language])
            errors, words = errors + count.errors, words + count.words
    assert words > 60 and errors < 0.6 * words  # 48 of 93 were measured


def test_an_evaluation_by_windows_says_by_which(build):
    settings = Settings(chunk_frames=2, right_frames=1)
    found = settings.described(settings.open(build / "fp32"))
    assert (found["lookahead"], found["pass_s"]) == ([70, 2, 1], None)
    whole = Settings().described(Settings().open(build / "fp32"))
    assert (whole["lookahead"], whole["pass_s"]) == (None, 390.0)
