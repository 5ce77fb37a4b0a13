"""Workers on the machines of a Ray cluster. The slow test has a real one, of several nodes; the fast ones a stand-in for Ray."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from nemoport.errors import ArtifactError, UsageError
from nemoport.evaluation import on_ray
from nemoport.evaluation.evaluate import Workers, evaluate
from nemoport.evaluation.identity import Settings
from nemoport.evaluation.item import Item
from nemoport.evaluation.on_ray import RayEngine
from nemoport.evaluation.pool import Pool
from nemoport.evaluation.results import HYPOTHESES, JOURNAL, read_records
from nemoport.evaluation.sources import open_data
from nemoport.evaluation.transcriber import Opening
from nemoport.ray_cluster import stay_on_loopback

SPEECH = Path(__file__).parent.parent / "reference" / "audio"


class RayError(Exception):
    pass


class StandIn(ModuleType):
    """The calls of Ray that the engine uses, in this process. dies: numbers of actors that end with their second pack."""

    def __init__(self, dies=(), unreachable=False):
        super().__init__("ray")
        self.exceptions = SimpleNamespace(RayError=RayError)
        self.dies, self.unreachable, self.actors, self.killed, self.inits = dies, unreachable, [], [], []

    def is_initialized(self):
        return False

    def init(self, **place):
        self.inits.append(place)
        if self.unreachable:
            raise ConnectionError("nobody is there\nand more")

    def cluster_resources(self):
        return {"CPU": 6.0}

    def remote(self, cls):
        def make(opening):
            self.actors.append(Actor(self, cls(opening), len(self.actors)))
            return self.actors[-1]

        return SimpleNamespace(options=lambda num_cpus: SimpleNamespace(remote=make))

    def wait(self, futures, num_returns, timeout):
        return futures[:num_returns], futures[num_returns:]

    def get(self, future):
        return future.value()

    def kill(self, actor):
        self.killed.append(actor.number)

    def shutdown(self):
        self.killed.append("ray")


class Actor:
    def __init__(self, ray, instance, number):
        self.ray, self.instance, self.number, self.packs = ray, instance, number, 0
        self.begin = SimpleNamespace(remote=lambda: Future(instance.begin))
        self.records = SimpleNamespace(remote=lambda pack: Future(lambda: self.transcribe(pack)))

    def transcribe(self, pack):
        self.packs += 1
        if self.number in self.ray.dies and self.packs > 1:
            raise RayError("The actor died: its node is gone.\nlog")
        return self.instance.records(pack)


class Future:
    def __init__(self, value):
        self.value = value


class Transcribes:
    """In place of a recognizer."""

    def __init__(self, opening):
        if opening.probe == "nowhere":
            raise UsageError("This machine does not have the audio.")

    def record(self, item):
        return item.known() | {"text": item.id.upper()}


@pytest.fixture
def ray(monkeypatch):
    def put(**settings):
        made = StandIn(**settings)
        monkeypatch.setitem(sys.modules, "ray", made)
        monkeypatch.setattr(on_ray, "check_installed", lambda *_: None)
        monkeypatch.setattr(on_ray, "Transcriber", Transcribes)
        return made

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    return put


def opening(**more):
    return Opening("folder", None, Settings(), {}, {}, **more)


def ran(engine, workers=3):
    items = [Item(f"item {i}", "") for i in range(40)]
    found = list(Pool(engine, workers, items, print).run())
    assert [one["text"] for _, one in found] == [item.id.upper() for item, _ in found]
    return sorted(one["id"] for _, one in found) == sorted(item.id for item in items)


def test_actors_that_end_lose_nothing(ray, capsys):
    made = ray(dies={0, 3})
    engine = RayEngine(opening(), cpus=3, pack=4)
    assert ran(engine)
    assert len(made.actors) > 3 and made.killed[0] == 0 and "its node is gone" in capsys.readouterr().out
    engine.close()
    assert made.killed[-1] == "ray" and sorted(made.killed[:-1]) == sorted(actor.number for actor in made.actors)
    assert made.inits[0]["num_cpus"] == 3 and engine.cpus() == 6


def test_machines_without_the_audio_are_named(ray):
    ray()
    with pytest.raises(UsageError, match="does not have the audio"):
        ran(RayEngine(opening(probe="nowhere")))


def test_a_cluster_that_is_not_there_is_named(ray):
    made = ray(unreachable=True)
    with pytest.raises(UsageError, match=r"ray start --head"):
        RayEngine(opening(), "10.0.0.1:6379")
    assert made.inits[0]["address"] == "10.0.0.1:6379" and "num_cpus" not in made.inits[0]


def test_workers_of_no_engine_are_refused():
    with pytest.raises(UsageError, match="do not exist"):
        Workers("dask").open(opening())


@pytest.fixture(scope="module")
def clusters():
    """Starts real clusters, one after another: a head without workers, and nodes of one processor each, on the loopback
    interface."""
    stay_on_loopback()  # before the import
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    started = []

    def start(nodes):
        place = {"node_ip_address": "127.0.0.1", "object_store_memory": 80 << 20}
        cluster = Cluster(initialize_head=True, head_node_args=place | {"num_cpus": 0, "include_dashboard": False})
        started.append(cluster)
        return cluster, [cluster.add_node(num_cpus=1, **place) for _ in range(nodes)]

    yield start
    ray.shutdown()
    for cluster in started:
        cluster.shutdown()


@pytest.mark.slow
def test_one_two_and_four_nodes_write_the_same_bytes_and_a_node_that_is_killed_loses_nothing(build, clusters, tmp_path):
    import ray

    def run(name, address=None, **more):
        workers = Workers("ray", address=address, pack=1) if address else Workers(count=1)
        evaluate(str(build / "fp32"), lambda _: open_data(SPEECH / "eval.jsonl"), tmp_path / name, workers=workers, **more)
        return (tmp_path / name / HYPOTHESES).read_bytes()

    whole = run("local")
    for count in (1, 2, 4):
        cluster, nodes = clusters(count)
        listening = subprocess.run(["ss", "-ltnp"], capture_output=True, text=True).stdout.splitlines()
        assert not [line for line in listening if ("gcs_server" in line or "ray" in line) and "127.0.0.1" not in line]
        lines, name = [], f"ray {count}"
        journal = tmp_path / name / JOURNAL

        def kill(node, cluster=cluster, journal=journal):
            while not journal.exists() or len({one["worker"] for one in read_records(journal)}) < 2:
                time.sleep(0.05)
            cluster.remove_node(node, allow_graceful=False)

        if count == 2:
            threading.Thread(target=kill, args=(nodes[0],), daemon=True).start()
        assert run(name, cluster.address, progress=lambda report, lines=lines: lines.append(str(report))) == whole
        assert len(list(read_records(journal))) == 69
        assert any("a worker ended" in line for line in lines) == (count == 2)
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.slow
def test_another_artifact_is_refused_by_a_real_actor(build, clusters, tmp_path, monkeypatch):
    import ray

    from nemoport.evaluation import evaluate as module

    cluster, _ = clusters(1)
    monkeypatch.setattr(module, "_opening", lambda *_: opening())
    monkeypatch.setattr(on_ray, "Opening", Opening)
    with pytest.raises(ArtifactError):
        workers = Workers("ray", address=cluster.address)
        evaluate(str(build / "fp32"), lambda _: open_data(SPEECH / "eval.jsonl"), tmp_path / "r", workers=workers)
    assert json.loads((tmp_path / "r" / "run.json").read_text())["shard"] == "1/1"
    ray.shutdown()
    cluster.shutdown()
