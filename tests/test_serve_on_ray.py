"""`nemoport serve --engine ray`. The slow test has a real cluster of Ray, of three nodes on loopback."""

import asyncio
import contextlib
import json
import pickle
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

pytest.importorskip("prometheus_client")
pytest.importorskip("uvicorn")
from websockets.exceptions import ConnectionClosed  # noqa: E402
from websockets.sync.client import connect  # noqa: E402

from nemoport import Recognizer  # noqa: E402
from nemoport.errors import ArtifactError, UsageError  # noqa: E402
from nemoport.ray_cluster import stay_on_loopback  # noqa: E402
from nemoport.server.access import Access  # noqa: E402
from nemoport.server.connection import Refused  # noqa: E402
from nemoport.server.limits import Limits  # noqa: E402
from nemoport.server.metrics import Metrics  # noqa: E402
from nemoport.server.replica import Board, Bounded, ReplicaServer, Report, packed, unpacked  # noqa: E402

AUDIO = Path(__file__).resolve().parent.parent / "reference" / "audio" / "eval"
SECONDS = 25


class BoardHandle:
    """Calls of Serve to a board in this process."""

    def __init__(self):
        self.board, self.is_lost = Board(), False

    def __getattr__(self, name):
        async def call(*arguments):
            if self.is_lost:
                raise ConnectionError
            return await getattr(self.board, name)(*arguments)

        return SimpleNamespace(remote=call)


def server(name, board, sessions):
    return ReplicaServer(name, board, None, Access(None, (), "127.0.0.1"), Limits(sessions=sessions, drain_s=0.1), Metrics())


def reports_of(*servers):
    return [asyncio.create_task(one.report_on()) for one in servers]


def test_replicas_answer_for_all():
    """A full one is ready while another is, figures are of all of them, and a board that is lost leaves each its own."""

    async def run():
        board = BoardHandle()
        full, other = server("full", board, 0), server("other", board, 1)
        full.metrics.sessions.labels("m").set(3)
        other.metrics.sessions.labels("m").set(2)
        assert (await full.readiness())[0] == 503 and await other.readiness() is None
        tasks = reports_of(full, other)
        await asyncio.sleep(0.05)
        assert await full.readiness() is None and await other.readiness() is None
        for one in (full, other):
            text = (await one.figures()).decode()
            assert 'nemoport_sessions{model="m",replica="full"} 3.0\n' in text
            assert (
                'nemoport_sessions{model="m",replica="other"} 2.0\n' in text and text.count("# TYPE nemoport_sessions gauge") == 1
            )
        board.is_lost = True
        assert (await full.readiness())[0] == 503 and b"full" not in await other.figures()
        for task in tasks:
            task.cancel()

    asyncio.run(run())


def test_all_replicas_end_with_the_board(monkeypatch):
    """Each drains once; one that is gone is not waited for."""
    monkeypatch.setattr("nemoport.server.replica.REPORT_S", 0.01)
    monkeypatch.setattr("nemoport.server.replica.FRESH_S", 0.3)

    async def run():
        board = BoardHandle()
        replicas = server("a", board, 1), server("b", board, 1)
        await board.board.report(Report("gone", True, False, ()))
        tasks = reports_of(*replicas)
        await asyncio.sleep(0.05)
        assert await board.board.end() == 3
        await asyncio.sleep(0.4)
        assert await board.board.end() == 0 and all(one.is_draining for one in replicas)
        assert [(await one.readiness())[0] for one in replicas] == [503, 503]
        for task in tasks:
            task.cancel()

    asyncio.run(run())


def test_a_report_goes_to_another_process():
    metrics = Metrics()
    metrics.batch("m", 2, 0.1)
    report = Report("a", True, False, metrics.families())
    assert pickle.loads(pickle.dumps(report)) == report
    assert b"digest" not in pickle.dumps(Access("a-token-of-16-characters", (), "h")) and b"a-token" not in pickle.dumps(
        Access("a-token-of-16-characters", (), "h")
    )


@pytest.mark.parametrize("kept", [3, 4])
def test_a_client_that_is_too_fast_is_ended(kept):
    """Of what a proxy has read, so much may wait and no more; then nothing of it is taken."""
    messages = [{"type": "websocket.receive", "bytes": bytes(100)} for _ in range(kept)]

    async def app(scope, receive, send):
        await asyncio.sleep(0.01)
        while not found or found[-1]["type"] != "websocket.disconnect":
            found.append(await receive())

    async def receive():
        return messages.pop(0) if messages else {"type": "websocket.disconnect"}

    found = []
    with contextlib.nullcontext() if kept == 3 else pytest.raises(Refused, match="too fast"):
        asyncio.run(Bounded(app, Limits(unread_bytes=700))({"type": "websocket"}, receive, None))
    assert len(found) == (4 if kept == 3 else 0)


def test_an_error_of_a_replica_is_found_in_what_serve_says():
    error = ArtifactError("There is no artifact here.", expected="a folder\x1b", found="", todo="make it")
    found = unpacked(f"Deployment failed: '...\\nRuntimeError: {packed(error, '10.0.0.2')}\\n'")
    assert (found.what, found.found, found.todo) == (error.what, " (on 10.0.0.2)", "make it")
    assert unpacked("no error of ours: nemoport-error:") is None


def test_a_port_is_needed(monkeypatch):
    from nemoport.server import on_ray

    monkeypatch.setattr(on_ray, "check_installed", lambda *_: None)
    with pytest.raises(UsageError, match="no port"):
        on_ray.serve_on_ray([], "127.0.0.1", 0, Limits(), on_ray.Cluster())
    with pytest.raises(UsageError, match="other machines"):
        on_ray.serve_on_ray([], "0.0.0.0", 8000, Limits(), on_ray.Cluster())


class Served:
    """The command, on a cluster."""

    def __init__(self, package, address, *more):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        place = ["--engine", "ray", "--address", address, "--port", str(self.port), "--threads", "1"]
        command = [sys.executable, "-m", "nemoport.cli", "serve", str(package), *place, *more]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def sessions(self):
        """replica -> live sessions, of those that report."""
        lines = [line for line in self.get("/metrics")[1].splitlines() if line.startswith("nemoport_sessions{")]
        return {line.partition('replica="')[2].partition('"')[0]: int(float(line.split()[-1])) for line in lines}

    def connect(self, **settings):
        return connect(f"ws://127.0.0.1:{self.port}/v1/stream", **settings)

    def stream(self, samples, seconds=0.0):
        """Streams in a thread, in about so many seconds."""
        one = Streamed(self, samples, seconds)
        one.start()
        return one


class Streamed(threading.Thread):
    """A client. events: that it was sent; code: of the close, 1006 where there was none."""

    def __init__(self, served, samples, seconds):
        super().__init__()
        self.served, self.samples, self.seconds, self.events, self.code = served, samples, seconds, [], 0

    def run(self):
        with self.served.connect() as client:
            sending = threading.Thread(target=self.send, args=(client,))
            sending.start()
            with contextlib.suppress(ConnectionClosed):
                while True:
                    self.events.append(json.loads(client.recv()))
            self.code = client.close_code
            sending.join()

    def send(self, client):
        with contextlib.suppress(ConnectionClosed):
            for at in range(0, len(self.samples), 1600):
                client.send(self.samples[at : at + 1600].tobytes())
                time.sleep(self.seconds * 1600 / len(self.samples))
            client.send('{"type": "end"}')

    @property
    def is_whole(self):
        return self.code == 1000 and self.events[-1]["type"] == "end"

    @property
    def text(self):
        return " ".join(event["text"] for event in self.events if event["type"] == "utterance")


def speech(first):
    """About SECONDS of speech, from a clip on; int16."""
    clips = [soundfile.read(path, dtype="int16")[0] for path in sorted(AUDIO.glob("*.flac"))]
    joined = np.concatenate([part for clip in clips[first:] for part in (clip, np.zeros(16_000, np.int16))])
    return joined[: SECONDS * 16_000]


def until(holds, seconds=60.0):
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end
        time.sleep(0.2)
    return found


def nodes_of_replicas(nodes):
    """Nodes that have a replica: its process is a child of the node's raylet."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and b"ServeReplica:nemoport:replica" in (folder / "cmdline").read_bytes():
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                found += [node for node in nodes if any(one.process.pid == parent for one in node.all_processes["raylet"])]
    return found


@pytest.fixture(scope="module")
def cluster():
    """A head and two nodes of one processor each, on the loopback interface."""
    stay_on_loopback()
    pytest.importorskip("ray")
    pytest.importorskip("aiohttp_cors", reason="ray[serve] is not installed: pip install 'nemoport[ray]'")
    from ray.cluster_utils import Cluster

    place = {"node_ip_address": "127.0.0.1", "object_store_memory": 80 << 20, "num_cpus": 1}

    def node(**more):  # Ray gives a node 30 s to start, its agents 15, which a busy machine does not hold
        for _ in range(3):
            with contextlib.suppress(Exception):
                return cluster.add_node(**place, **more)
        pytest.skip("the nodes of Ray do not start in its time: this machine is too busy")

    cluster = Cluster()
    node(include_dashboard=False)
    yield cluster, [node() for _ in range(2)]
    cluster.shutdown()


@pytest.mark.slow
def test_a_node_that_is_lost_costs_its_own_sessions_alone(docs_package, cluster):
    """Two replicas; the node of one is killed. The other's sessions have the text of a stream alone, new ones are served, and the
    lost replica comes back on the node that is left. Then the server ends: a session that goes on is ended and whole."""
    cluster, nodes = cluster
    samples = [speech(8 * i) for i in range(6)]
    recognizer = Recognizer.open(docs_package, threads=1)
    alone = [found.text for one in samples for found in recognizer.transcribe([one.astype(np.float32) / 2**15])]
    missing = Served(docs_package.parent / "nowhere", cluster.address)
    assert "There is no artifact" in missing.process.communicate(timeout=120)[1] and missing.process.returncode == 2
    served = Served(docs_package, cluster.address, "--replicas", "2", "--drain", "2")
    try:
        assert served.process.stdout.readline().strip() == f"http://127.0.0.1:{served.port}", served.process.stderr.read()
        streams = [served.stream(one, SECONDS) for one in samples]
        before = until(lambda: (found := served.sessions()) and sum(found.values()) == 6 and found)
        assert len(before) == 2 and min(before.values()) >= 1  # Serve passes over a replica that answers late
        cluster.remove_node(nodes_of_replicas(nodes)[0], allow_graceful=False)
        assert until(lambda: served.get("/ready")[0] == 200, 10)

        def served_anew():  # Ray takes some seconds to notice the loss; until then a new session may be sent to the lost replica
            one = served.stream(samples[0][: 5 * 16_000])
            one.join()
            return one if one.is_whole else None

        new = until(served_anew)
        after = until(
            lambda: (found := served.sessions()) and len(found.keys() - before.keys()) == 1 and len(found) == 2 and found
        )
        for stream in streams:
            stream.join()
        (lost,) = before.keys() - after.keys()
        ended = [stream for stream in streams if not stream.is_whole]
        assert len(ended) == before[lost] and all(stream.code != 1000 for stream in ended)
        assert [one.text for one in streams if one.is_whole] == [
            text for text, one in zip(alone, streams, strict=True) if one.is_whole
        ]
        assert alone[0].startswith(new.text.rpartition(" ")[0])

        going = served.stream(samples[1], SECONDS)
        until(lambda: sum(served.sessions().values()) == 1)
        served.process.terminate()
        going.join()
        assert going.code == 1012 and {"type": "draining", "seconds": 2.0} in going.events
        assert alone[1].startswith(going.text.rpartition(" ")[0]) and going.events[-1]["type"] == "end"
        assert served.process.wait(60) == 0 and served.process.stderr.read() == ""
    finally:
        served.process.kill()
