"""`nemoport serve`: sessions in one batch have the text that each has alone; what one client does costs no other."""

import asyncio
import base64
import contextlib
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from nemoport import Recognizer
from nemoport.errors import AudioError, UsageError

pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")
from websockets.exceptions import ConnectionClosed, InvalidStatus  # noqa: E402
from websockets.sync.client import connect  # noqa: E402

from nemoport.server import opus  # noqa: E402
from nemoport.server.access import Access, read_token  # noqa: E402
from nemoport.server.actions import Audio, End, Ended, Language, Start, Utterance  # noqa: E402
from nemoport.server.app import Server  # noqa: E402
from nemoport.server.batcher import Batcher  # noqa: E402
from nemoport.server.limits import Limits  # noqa: E402
from nemoport.server.live import Live  # noqa: E402
from nemoport.server.metrics import Metrics  # noqa: E402
from nemoport.server.models import Models, Opening  # noqa: E402
from nemoport.server.native import Native  # noqa: E402
from nemoport.server.realtime import Realtime  # noqa: E402
from nemoport.server.run import check_serving, serve_until  # noqa: E402
from nemoport.stream import advance  # noqa: E402
from nemoport.words import Segment, Word  # noqa: E402

AUDIO = Path(__file__).resolve().parent.parent / "reference" / "audio" / "eval"
CLIPS = [AUDIO / f"{number:03}.flac" for number in (1, 3, 5, 8)]
METRICS = Metrics()
TOKEN = "a-token-of-the-tests"


def pcm(path):
    return soundfile.read(path, dtype="int16")[0]


@pytest.fixture(scope="module")
def models(docs_package):
    opened = Models([Opening(str(docs_package), threads=1)], Limits(batch=3), METRICS)
    yield opened
    opened.end()


@pytest.fixture(scope="module")
def alone(docs_package):
    """path -> what a recognizer finds in it."""
    recognizer = Recognizer.open(docs_package, threads=1)
    return {path: recognizer.transcribe_file(path) for path in CLIPS}


class Running:
    """A server on loopback, in a thread."""

    def __init__(self, models, token=None, origins=(), **limits):
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.server = Server(models, Access(token, origins, "127.0.0.1"), Limits(**limits), METRICS)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._run(),))
        self._thread.start()
        assert self._ready.wait(20)

    async def _run(self):
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        await serve_until(self._ended, self.server, self._listening, self._ready.set)

    def begin_end(self):
        self._loop.call_soon_threadsafe(self._ended.set)

    def end(self):
        if self._thread.is_alive():
            self.begin_end()
            self._thread.join(30)
        assert not self._thread.is_alive()

    def url(self, path, scheme="http"):
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    def connect(self, path="/v1/stream", **settings):
        return connect(self.url(path, "ws"), **settings)

    def get(self, path, data=None, **headers):
        """Status and body of a request."""
        request = urllib.request.Request(self.url(path), data, {name.replace("_", "-"): text for name, text in headers.items()})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


@contextlib.contextmanager
def running(*arguments, **settings):
    one = Running(*arguments, **settings)
    try:
        yield one
    finally:
        one.end()


@pytest.fixture(scope="module")
def server(models):
    with running(models, sessions=5, idle_s=1.5, session_s=20, message_bytes=1 << 17, drain_s=1, events=8, send_s=1) as one:
        yield one


def events(client):
    """Events until the connection closes, and the close code."""
    found = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            found.append(json.loads(client.recv(timeout=30)))
    return found, client.close_code


def text_of(found):
    return " ".join(event["text"] for event in found if event["type"] == "utterance")


def streamed(client, samples, packet=1600, **start):
    client.send(json.dumps({"type": "start", **start}))
    for at in range(0, len(samples), packet):
        client.send(samples[at : at + packet].tobytes())
    client.send('{"type": "end"}')
    return events(client)


class Client:
    """A session of a batcher without a socket."""

    def __init__(self, batcher, recognizer, samples):
        self.live = Live(recognizer, Start(), self._take)
        self.batcher, self.samples, self.segments, self.failure, self.done = batcher, samples, [], None, threading.Event()
        batcher.add(self.live)

    def _take(self, found, error):
        self.segments += [event.segment for event in found if isinstance(event, Utterance)]
        self.failure = self.failure or error
        if error or any(isinstance(event, Ended) for event in found):
            self.done.set()

    def send(self, at, size):
        part = self.samples[at : at + size]
        self.batcher.offer(self.live, Audio(part.tobytes()), len(part))
        if at + size >= len(self.samples):
            self.batcher.offer(self.live, End())


def check_batching(recognizer, session, workers=1, lookaheads=(None,)):
    """Sessions that begin one after another, in packets of different sizes, have the tokens of a stream that is alone."""
    batcher, clients = Batcher(session, 3, workers, METRICS, "test"), []
    packets = (1600, 777, 4000, 12_345, 320, 9000)
    for i, packet in enumerate(packets):
        one = recognizer(lookaheads[i % len(lookaheads)])
        clients.append((Client(batcher, one, pcm(CLIPS[i % len(CLIPS)])), packet, one))
    ats = [-5000 * i for i in range(len(clients))]  # each joins later than the one before
    while any(at < len(client.samples) for at, (client, _, _) in zip(ats, clients, strict=True)):
        for i, (client, packet, _) in enumerate(clients):
            if 0 <= ats[i] < len(client.samples):
                client.send(ats[i], packet)
            ats[i] = min(ats[i] + packet, 0) if ats[i] < 0 else ats[i] + packet
    for client, _, one in clients:
        assert client.done.wait(60) and client.failure is None
        (expected,) = one.transcribe([client.samples.astype(np.float32) / 2**15])
        assert tuple(client.live.stream.tokens) == expected.tokens and expected.tokens
        assert " ".join(segment.text for segment in client.segments) == expected.text
    batcher.end()


@pytest.mark.parametrize("workers", [1, 2])
def test_batching_changes_no_token(models, workers):
    model = models.find("")
    check_batching(model.recognizer, model.recognizer().session, workers, (None, 1))


def opened(folder, threads=1):
    """lookahead -> recognizer, all over one session that keeps streams apart."""
    model = Models([Opening(str(folder), threads=threads)], Limits(), METRICS).find("")
    return model.recognizer, model.recognizer().session


def test_batching_changes_no_token_of_fp32(build):
    check_batching(*opened(build / "fp32"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant", ["int8-static", "int8-smoothquant", "int8-weight", "int4-weight", "kv-fp32", "kv-int8-dynamic"]
)
def test_batching_changes_no_token_of_any_variant(build, tmp_path, variant):
    from damage import copy_build
    from quantizing import quiet, short_manifest

    from nemoport.export.build import export_checkpoint
    from nemoport.export.checkpoint import read_checkpoint
    from nemoport.quantize import build_variant

    copy = copy_build(build, tmp_path / "build")
    if variant.startswith("kv-"):
        checkpoint = Path(__file__).resolve().parent.parent / "reference" / "checkpoints" / "streaming-en.nemo"
        export_checkpoint(read_checkpoint(str(checkpoint)), copy, "kv")
    if variant != "kv-fp32":
        build_variant(copy, variant, short_manifest(tmp_path), progress=quiet)
    check_batching(*opened(copy / variant), workers=2, lookaheads=(None, 0, 13))


def test_a_stream_has_the_text_of_the_recording(server, alone):
    for path, packet in ((CLIPS[0], 1600), (CLIPS[1], 333)):
        with server.connect() as client:
            found, code = streamed(client, pcm(path), packet, progress=True)
        assert code == 1000 and text_of(found) == alone[path].text and found[0]["type"] == "started"
        assert found[-1] == {"type": "end", "audio_seconds": round(alone[path].audio_seconds, 6)}
        updates = [event for event in found if event["type"] == "update"]
        assert len(updates) == len(range(0, len(pcm(path)) - 49 * 160 - 199, 56 * 160))  # of a chunk each, but the last
        shown = [word for event in found if event["type"] == "utterance" for word in event["words"]]
        assert [word["text"] for word in shown] == [word.text for word in alone[path].words]
        assert [word["start"] for word in shown] == [round(word.start, 6) for word in alone[path].words]
        assert all(event["text"].split()[-len(event["words"]) :] == [w["text"] for w in event["words"]] for event in updates)


def test_settings_of_a_session(server, alone, docs_package):
    name = f"{docs_package.name}/kv-int8-weight"
    start = {"model": name, "lookahead": 1, "sample_rate": 8000, "hotwords": ["village"], "hotword_boost": 0.5}
    with server.connect() as client:
        found, code = streamed(client, pcm(CLIPS[1])[::2], **start)
    assert code == 1000 and text_of(found) and found[-1]["audio_seconds"] == round(len(pcm(CLIPS[1])[::2]) / 8000, 6)
    begun = {key: found[0][key] for key in ("model", "lookahead", "sample_rate", "model_sample_rate", "chunk_ms")}
    assert begun == {"model": name, "lookahead": 1, "sample_rate": 8000, "model_sample_rate": 16_000, "chunk_ms": 160}


def test_an_utterance_that_the_client_ends(server, alone):
    """Flush ends it without its silence; what follows is as the start of a stream."""
    with server.connect() as client:
        for path in CLIPS[:2]:
            client.send(pcm(path).tobytes())
            client.send('{"type": "flush"}')
        client.send('{"type": "end"}')
        found, code = events(client)
    assert code == 1000 and [event["type"] for event in found].count("flushed") == 2
    assert text_of(found) == f"{alone[CLIPS[0]].text} {alone[CLIPS[1]].text}"


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (b"\0\0\0", "within a sample"),
        ("{", "no JSON"),
        ("[" * 50_000, "no JSON"),
        ('{"type": "begin"}', "begin"),
        ('{"type": ["start"]}', "another message"),
        ('{"type": "start", "hotword": []}', "hotword"),
        ('{"type": "start", "lookahead": true}', "lookahead"),
        ('{"type": "start", "lookahead": 2}', "Lookahead 2"),
        ('{"type": "start", "model": "other"}', "no such model"),
        ('{"type": "start", "sample_rate": 12}', "sample rate"),
        ('{"type": "start", "language": "de-DE"}', "no language prompt"),
        ('{"type": "start", "format": "opus", "sample_rate": 16000}', "one rate"),
        ('{"type": "start", "pause": 0}', "pause"),
        ('{"type": "language", "language": "de"}', "no language prompt"),
    ],
)
def test_a_message_that_cannot_be_used(server, message, says):
    with server.connect() as client:
        client.send(message)
        if "language" in str(message) and "start" not in str(message):
            client.send(b"\0\0" * 9000)
        found, code = events(client)
    assert code == 1007 and found[-1]["type"] == "error"
    assert says in json.dumps(found[-1]) and found[-1]["expected"] and found[-1]["todo"]


def test_settings_behind_audio_are_refused(server):
    with server.connect() as client:
        client.send(b"\0\0" * 100)
        client.send('{"type": "start"}')
        found, code = events(client)
    assert code == 1007 and found[-1]["message"] == "The session has begun."


def test_limits_of_a_session(server):
    with server.connect() as idle, server.connect() as long, server.connect() as large:
        large.send(bytes(1 << 18))
        for _ in range(21):
            long.send(bytes(32_000))
        assert events(large)[1] == 1009
        found, code = events(long)
        assert code == 1008 and "too long" in found[-1]["message"]
        found, code = events(idle)
        assert code == 1008 and "idle" in found[-1]["message"]


def test_more_sessions_than_there_may_be(server):
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(server.connect())
        with pytest.raises(InvalidStatus) as refused:
            server.connect()
        assert refused.value.response.status_code == 503 and b"The server is full." in refused.value.response.body
        assert server.get("/ready")[0] == 503 and server.get("/health")[0] == 200
    until(lambda: server.get("/ready")[0] == 200)


def until(holds, seconds=10):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_client_that_takes_nothing_costs_no_other(server, alone):
    """It never reads: its events fill the buffers of both sides, and it is closed; others go on meanwhile."""
    slow = socket.create_connection(("127.0.0.1", server.port))
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    key = base64.b64encode(b"0" * 16).decode()
    head = f"GET /v1/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
    slow.sendall((head + "Sec-WebSocket-Version: 13\r\n\r\n").encode())
    assert b"101" in slow.recv(1024)
    (connection,) = server.server.connections
    for _ in range(300):  # as if the batcher had made them
        server._loop.call_soon_threadsafe(connection._send, ["x" * 40_000])
    with server.connect() as client:
        found, code = streamed(client, pcm(CLIPS[0]))
    assert code == 1000 and text_of(found) == alone[CLIPS[0]].text
    until(lambda: not server.server.connections)
    slow.close()


def test_a_client_that_vanishes_is_forgotten(server):
    client = server.connect()
    client.send(pcm(CLIPS[0]).tobytes())
    client.socket.shutdown(socket.SHUT_RDWR)
    until(lambda: not server.server.connections)
    assert not server.server.models.find("").batcher._lives


def test_a_client_that_is_too_fast_is_slowed(models):
    """It may be 1 s ahead: 3 s of audio take 2 s, and 8 ahead take none."""
    with running(models, ahead_s=1.0) as server, server.connect() as client:
        began = time.monotonic()
        found, _ = streamed(client, np.zeros(3 * 16_000, np.int16), progress=True)
        assert 1.8 < time.monotonic() - began < 10 and found[-1]["audio_seconds"] == 3


def test_a_ping_that_waits_behind_audio_ends_no_session(models, monkeypatch):
    """A client that is too fast is not read, and neither is its answer to a ping. Pings, if there are any, are fast here."""
    import uvicorn

    class Fast(uvicorn.Config):
        def __init__(self, *arguments, **settings):
            super().__init__(*arguments, **settings)
            self.ws_ping_interval, self.ws_ping_timeout = self.ws_ping_interval and 0.1, 0.1

    monkeypatch.setattr(uvicorn, "Config", Fast)
    with running(models, ahead_s=0.5) as server, server.connect(ping_interval=None) as client:
        found, code = streamed(client, np.zeros(40_000, np.int16), 8000)
    assert code == 1000 and found[-1]["audio_seconds"] == 2.5


def test_audio_that_waits_for_the_model_is_bounded(models, alone):
    """The client is not read while half a second waits, and read on when a batch has taken it."""
    with running(models, waiting_s=0.5) as server, server.connect() as client:
        silence = np.zeros(160_000, np.int16)  # which makes no events
        found, code = streamed(client, np.concatenate([silence, pcm(CLIPS[0])]), 24_000)
    assert code == 1000 and text_of(found) == alone[CLIPS[0]].text


def test_a_session_that_lasts_too_long(models):
    """Without audio too: messages alone hold no place."""
    with running(models, session_s=0.4) as server, server.connect() as client:
        with contextlib.suppress(ConnectionClosed):
            for _ in range(50):
                client.send(b"")
                time.sleep(0.02)
        found, code = events(client)
    assert code == 1008 and "too long" in found[-1]["message"]


def test_a_recording_of_a_server_that_ends(server, models):
    """A part of a long one is given up."""
    from nemoport.server.files import Transcriptions, _Watched

    transcriptions = Transcriptions(models, Limits())
    watched = _Watched(SimpleNamespace(read=lambda n: np.zeros(n, np.float32)), transcriptions._read_on)
    assert len(watched.read(3)) == 3
    transcriptions.end()
    with pytest.raises(AudioError, match="ends"):
        watched.read(3)


def test_a_session_that_fails_costs_no_other(models, alone, monkeypatch):
    """A fault in one session's own work ends it alone, and the threads go on."""
    model = models.find("")
    fails = Client(model.batcher, model.recognizer(), pcm(CLIPS[0]))
    goes_on = Client(model.batcher, model.recognizer(), pcm(CLIPS[0]))
    monkeypatch.setattr(fails.live, "collect", lambda had_chunk: 1 / 0)
    for client in (fails, goes_on):
        client.send(0, 1 << 20)
    assert fails.done.wait(20) and fails.failure.what == "The server failed."
    assert goes_on.done.wait(20) and goes_on.failure is None and models.are_alive
    assert " ".join(segment.text for segment in goes_on.segments) == alone[CLIPS[0]].text
    with model.batcher._changed:
        model.batcher._lives.clear()


def form(path, **fields):
    parts = [f'--x\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode() for k, v in fields.items()]
    file = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + path.read_bytes() + b"\r\n--x--\r\n"
    return {"data": b"".join([*parts, file]), "Content_Type": "multipart/form-data; boundary=x"}


def test_recordings(server, alone, tmp_path):
    found, path = alone[CLIPS[0]], "/v1/audio/transcriptions"
    assert json.loads(server.get(path, **form(CLIPS[0]))[1]) == {"text": found.text}
    assert server.get(path, **form(CLIPS[0], response_format="text"))[1] == found.text + "\n"
    assert server.get(path, **form(CLIPS[0], response_format="vtt"))[1].startswith("WEBVTT")
    assert " --> " in server.get(path, **form(CLIPS[0], response_format="srt"))[1]
    verbose = json.loads(
        server.get(path, **form(CLIPS[0], **{"response_format": "verbose_json", "timestamp_granularities[]": "word"}))[1]
    )
    assert [word["word"] for word in verbose["words"]] == [word.text for word in found.words] and "segments" not in verbose
    (tmp_path / "a").write_bytes(b"not audio")
    for fields, says in (({"prompt": "a"}, "hotwords"), ({"response_format": "doc"}, "verbose_json"), ({"model": "b"}, "model")):
        status, answer = server.get(path, **form(CLIPS[0], **fields))
        assert status == 422 and says in answer
    status, answer = server.get(path, **form(tmp_path / "a"))
    assert status == 422 and str(tmp_path) not in answer and "/tmp" not in answer
    assert server.get(path, b"x", Content_Type="multipart/form-data")[0] == 400
    assert server.get(path, b"x")[0] in (400, 422)


def test_a_recording_that_is_too_large(models):
    with running(models, upload_bytes=10_000) as server:
        status, answer = server.get("/v1/audio/transcriptions", **form(CLIPS[0]))
        assert status == 413 and "too large" in answer


def test_openai_events(server, alone):
    given = {"format": {"type": "audio/pcm", "rate": 16_000}, "turn_detection": {"silence_duration_ms": 700}}
    with server.connect("/v1/realtime?intent=transcription") as client:
        client.send(json.dumps({"type": "session.update", "session": {"audio": {"input": given}}}))
        found, before = [], 0
        for path in CLIPS[:2]:
            for at in range(0, len(pcm(path)), 8000):
                audio = base64.b64encode(pcm(path)[at : at + 8000].tobytes()).decode()
                client.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
            client.send(json.dumps({"type": "input_audio_buffer.commit"}))
            while not found or found[-1]["type"] != "input_audio_buffer.committed" or len(found) == before:
                found.append(json.loads(client.recv(timeout=20)))
            before = len(found)
        client.send(json.dumps({"type": "input_audio_buffer.append", "audio": "a"}))
        failed, code = events(client)
    assert [event["type"] for event in found[:2]] == ["session.created", "session.updated"]
    completed = {event["item_id"]: event["transcript"] for event in found if event["type"].endswith("completed")}
    assert " ".join(completed.values()) == f"{alone[CLIPS[0]].text} {alone[CLIPS[1]].text}" and len(completed) > 1
    for item, text in completed.items():
        deltas = [event["delta"] for event in found if event["type"].endswith("delta") and event["item_id"] == item]
        assert "".join(deltas).split() == text.split()
    assert found[-1]["item_id"] == list(completed)[-1]
    assert failed[-1]["type"] == "error" and "base64" in failed[-1]["error"]["message"] and code == 1007


def test_words_of_two_utterances_that_end_at_once(models):
    """An update had the first word; what is new is the rest of the first utterance and all of the second."""
    live = Live(models.find("").recognizer(), Start(), lambda events, error: None)
    live._shown = 1
    words = [Word(text, 0.0, 0.1, 1.0) for text in "abc"]
    first, second = live._ended([Segment(tuple(words[:2])), Segment(tuple(words[2:]))])
    assert (first.number, first.new, second.number, second.new) == (0, (words[1],), 1, (words[2],))


def test_chunks_that_were_sent_before_a_language_have_the_one_before(models, monkeypatch):
    """However many wait to be encoded."""
    recognizer, changes = models.find("").recognizer(), []
    live = Live(recognizer, Start(), lambda events, error: None)
    prompt = SimpleNamespace(slot=lambda name: name)
    monkeypatch.setattr(live, "_recognizer", SimpleNamespace(session=SimpleNamespace(spec=SimpleNamespace(prompt=prompt))))
    monkeypatch.setattr(live, "_push", live.stream.push)
    monkeypatch.setattr(live.stream, "set_language", lambda slot: changes.append((slot, len(live.stream.chunks))))
    live.feed([Audio(bytes(48_000)), Language("a"), Audio(bytes(48_000)), Language("b")])
    encoded = len(live.stream.chunks)
    assert encoded > 1 and not changes
    while live.is_ready:
        while live.stream.chunks:
            advance(recognizer.session, [live.stream])
        live.feed([])
        encoded += len(live.stream.chunks)
    assert changes == [("a", 0), ("b", 0)] and encoded == 5


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"type": "session.update", "session": {"input_audio_format": "g711_ulaw"}}, "pcm16"),
        ({"type": "session.update", "session": {"input_audio_transcription": {"prompt": "names"}}}, "hotwords"),
        (
            {"type": "session.update", "session": {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 0}}}}},
            "a rate in Hz",
        ),
        ({"type": "session.update", "session": {"turn_detection": {"silence_duration_ms": -1}}}, "silence"),
        ({"type": "session.update", "session": []}, "session"),
        ({"type": "session.update", "session": [1]}, "an object"),
        ({"type": "response.create"}, "input_audio_buffer.append"),
        ({"type": "input_audio_buffer.append", "audio": "AAAA"}, "16-bit"),
        (b"\0\0", "base64"),
        ("{", "input_audio_buffer.append"),
    ],
)
def test_openai_events_that_cannot_be_used(message, says):
    wire = Realtime("s")
    if message == {"type": "session.update", "session": []}:  # is as none
        return wire.read(json.dumps(message))
    with pytest.raises((UsageError, AudioError)) as refused:
        wire.read(json.dumps(message) if isinstance(message, dict) else message)
    assert says in wire.error(refused.value)


def test_a_token(models, tmp_path):
    with running(models, token=TOKEN, origins=["https://good.example"]) as server:
        for headers in ({}, {"Authorization": "Bearer other"}, {"Authorization": f"Basic {TOKEN}"}):
            status, answer = server.get("/v1/models", **headers)
            assert status == 401 and "token" in answer and TOKEN not in answer
            with pytest.raises(InvalidStatus) as refused:
                server.connect(additional_headers=headers)
            assert refused.value.response.status_code == 401
        assert server.get("/v1/models", Authorization=f"Bearer {TOKEN}")[0] == 200
        assert server.get("/health")[0] == server.get("/")[0] == 200 and server.get("/metrics")[0] == 401
        with server.connect(subprotocols=["nemoport", f"openai-insecure-api-key.{TOKEN}"]) as client:
            assert client.subprotocol == "nemoport"
        own = f"http://127.0.0.1:{server.port}"
        for origin, status in ((own, 200), ("https://good.example", 200), ("https://bad.example", 403), ("null", 403)):
            assert server.get("/v1/models", Authorization=f"Bearer {TOKEN}", Origin=origin)[0] == status, origin
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert read_token(tmp_path / "token") == TOKEN
    (tmp_path / "token").write_text("short")
    with pytest.raises(UsageError, match="no token"):
        read_token(tmp_path / "token")


@pytest.mark.parametrize(
    ("path", "token", "headers", "status"),
    [
        ("/v1/stream", None, {}, None),
        ("/v1/stream", TOKEN, {}, 401),
        ("/v1/stream", TOKEN, {"authorization": f"bearer {TOKEN}"}, None),
        ("/v1/stream", TOKEN, {"authorization": f"Bearer {TOKEN}x"}, 401),
        ("/v1/stream", TOKEN, {"authorization": "Bearer \u00e9"}, 401),
        ("/v1/stream", TOKEN, {"sec-websocket-protocol": f"a, openai-insecure-api-key.{TOKEN}"}, None),
        ("/v1/stream", TOKEN, {"sec-websocket-protocol": TOKEN}, 401),
        ("/ready", TOKEN, {}, None),
        ("/ready", TOKEN, {"origin": "https://bad.example"}, 403),
        ("/v1/stream", None, {"origin": "http://localhost:3000"}, None),
        ("/v1/stream", None, {"origin": "http://[::1]:3000"}, None),
        ("/v1/stream", None, {"origin": "https://Good.example/"}, None),
        ("/v1/stream", None, {"origin": "https://good.example.bad"}, 403),
        ("/v1/stream", None, {"origin": "http://good.example"}, 403),
        ("/v1/stream", None, {"origin": "http://a.example", "host": "a.example"}, 403),
        ("/ready", TOKEN, {"origin": "http://a.example", "host": "a.example"}, None),
        ("/ready", TOKEN, {"origin": "http://["}, 403),
    ],
)
def test_who_may_use_a_server(path, token, headers, status):
    access = Access(token, ["https://good.example"], "127.0.0.1")
    refused = access.refusal(path, [(name.encode(), value.encode("latin-1")) for name, value in headers.items()])
    assert (refused[0] if refused else None) == status


def test_a_page_of_another_name_may_not_connect(server):
    """A name that leads to this machine since a moment ago is in both headers of a browser."""
    assert server.get("/v1/models", Origin="http://evil.example", Host="evil.example")[0] == 403
    with pytest.raises(InvalidStatus):
        server.connect(origin="http://evil.example")


def test_an_address_that_others_reach_needs_a_token():
    with pytest.raises(UsageError, match="other machines"):
        check_serving("0.0.0.0", None)
    check_serving("0.0.0.0", TOKEN)
    check_serving("127.0.0.1", None)


def test_pages_load_nothing_of_others(server):
    page = server.get("/")[1]
    assert "http:" not in page + server.get("/page.js")[1] + server.get("/page.css")[1] + server.get("/worklet.js")[1]
    assert "https:" not in page and "<script>" not in page and "style=" not in page
    status, api = server.get("/api")
    assert status == 200 and "/v1/audio/transcriptions" in api and "/v1/stream" in api
    schema = json.loads(server.get("/openapi.json")[1])
    assert "multipart/form-data" in schema["paths"]["/v1/audio/transcriptions"]["post"]["requestBody"]["content"]
    assert server.get("/__init__.py")[0] == server.get("/..%2fapp.py")[0] == 404
    with urllib.request.urlopen(server.url("/")) as answer:
        assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_metrics(server):
    text = server.get("/metrics")[1]
    for name in (
        "sessions{",
        "sessions_opened_total{",
        "sessions_closed_total{",
        "batch_streams_bucket{",
        "chunk_latency_seconds_sum{",
    ):
        assert f"nemoport_{name}" in text
    assert 'nemoport_sessions_closed_total{reason="idle"}' in text


def test_an_end_lets_sessions_finish(models, alone):
    """No session begins any more. One that ends in time is whole; one that goes on is ended, and what it sent is transcribed."""
    with running(models, drain_s=1.0) as server:
        ending, going = server.connect(), server.connect()
        for client in (ending, going):
            client.send(pcm(CLIPS[0]).tobytes())
        until(lambda: all(connection._live for connection in server.server.connections))
        server.begin_end()
        until(lambda: server.server.is_draining)
        with pytest.raises(InvalidStatus) as refused:
            server.connect()
        assert refused.value.response.status_code == 503
        ending.send('{"type": "end"}')
        goes_on = threading.Thread(target=send_until_closed, args=(going,))
        goes_on.start()
        for client, code in ((ending, 1000), (going, 1012)):
            found, closed = events(client)
            assert closed == code and text_of(found) == alone[CLIPS[0]].text
            assert {"type": "draining", "seconds": 1.0} in found
        goes_on.join(20)


def send_until_closed(client):
    with contextlib.suppress(ConnectionClosed):
        while True:
            client.send(bytes(3200))
            time.sleep(0.05)


def test_opus(server, alone):
    av = pytest.importorskip("av", reason="PyAV is not installed")
    encoder = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format, encoder.bit_rate = 16_000, "mono", "s16", 64_000
    encoder.open()
    samples, packets = pcm(CLIPS[0]), []
    for at in range(0, len(samples) - 320, 320):
        frame = av.AudioFrame.from_ndarray(samples[None, at : at + 320], format="s16", layout="mono")
        frame.sample_rate, frame.pts = 16_000, at
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    packets += [bytes(packet) for packet in encoder.encode(None)]
    assert {opus.packet_samples(packet) for packet in packets} == {960}
    with server.connect() as client:
        client.send('{"type": "start", "format": "opus"}')
        for packet in packets:
            client.send(packet)
        client.send('{"type": "end"}')
        found, code = events(client)
    assert code == 1000 and text_of(found) == alone[CLIPS[0]].text
    for broken in (b"", b"OggS" * 400, packets[0][:1] + b"\xff", b"\xff\x00"):
        with server.connect() as client:
            client.send('{"type": "start", "format": "opus"}')
            client.send(broken)
            client.send('{"type": "end"}')
            found, code = events(client)
        assert code == 1007 or len(broken) == 2, broken
        assert code != 1007 or "packet of Opus" in found[-1]["message"]


@pytest.mark.parametrize(
    ("head", "ms"),
    [(0x00, 10), (0x18, 60), (0x60, 10), (0x68, 20), (0x80, 2.5), (0xF8, 20), (0xF9, 40), (0xFA, 40), (0x1B, 120), (0xFB, 40)],
)
def test_the_length_of_a_packet_is_in_its_head(head, ms):
    assert opus.packet_samples(bytes([head, 2])) == 48 * ms


@pytest.mark.parametrize("packet", [b"", b"\xfb", b"\xfb\x00", b"\xfb\x07", b"\x1b\x03", bytes(3833)])
def test_a_packet_without_a_length_is_none(packet):
    with pytest.raises(AudioError, match="Opus"):
        opus.packet_samples(packet)


def test_messages_of_the_native_protocol():
    wire = Native()
    ((start, _),) = wire.read('{"type": "start", "format": "opus"}')
    assert start.format == "opus" and wire.read(bytes([0xB8, 0]))[0][1] == 960
    with pytest.raises(AudioError, match="Opus"):
        wire.read(b"")
