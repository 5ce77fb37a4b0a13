"""A package on the Hub is opened by its name: over HTTP, from a server here that answers as the Hub does."""

import hashlib
import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

from nemoport.errors import ArtifactError, UsageError
from nemoport.hub_package import variant_folder
from nemoport.recognizer import Recognizer

constants = pytest.importorskip("huggingface_hub.constants")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    root: Path
    asked: list[str]
    down = False

    def do_HEAD(self):
        self._answer(with_body=False)

    def do_GET(self):
        self._answer(with_body=True)

    def _answer(self, with_body):
        path = unquote(self.path.split("?")[0])
        self.asked.append(path)
        if self.down or "someone/model" not in path:
            return self._send(503 if self.down else 404, b"", {}, with_body)
        if path.startswith("/api/models/someone/model"):
            if "/tree/" in path:
                found = [self._entry(f) for f in sorted(self.root.rglob("*")) if f.is_file()]
                return self._send(200, json.dumps(found).encode(), {"Content-Type": "application/json"}, with_body)
            names = [{"rfilename": str(f.relative_to(self.root))} for f in sorted(self.root.rglob("*")) if f.is_file()]
            info = {"id": "someone/model", "sha": COMMIT, "siblings": names, "tags": [], "private": False}
            return self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"}, with_body)
        file = self.root / path.split(f"/resolve/{COMMIT}/")[-1]
        if not file.is_file():
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, with_body)
        content = file.read_bytes()
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        return self._send(200, content, headers, with_body)

    def _entry(self, file):
        return {"type": "file", "path": str(file.relative_to(self.root)), "size": file.stat().st_size, "oid": "0" * 40}

    def _send(self, code, body, headers, with_body):
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(build, tmp_path, monkeypatch):
    """A server with the fp32 variant twice, under two names, and nothing in the cache."""
    root = tmp_path / "repository"
    for name in ("fp32", "other"):
        shutil.copytree(build / "fp32", root / name)
    shutil.copytree(build / "shared", root / "shared")
    shutil.copy(build / "config.json", root)
    (root / "README.md").write_text("a card")
    handler = type("Handler", (Hub,), {"root": root, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    for module in (
        constants,
        pytest.importorskip("huggingface_hub.hf_api"),
        pytest.importorskip("huggingface_hub.file_download"),
    ):
        monkeypatch.setattr(module, "ENDPOINT", address, raising=False)
    for module in (constants, pytest.importorskip("huggingface_hub.file_download")):
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield handler
    server.shutdown()


def files_asked(handler):
    return sorted({path.split(f"{COMMIT}/")[-1] for path in handler.asked if "/resolve/" in path})


def test_a_variant_is_downloaded_once_and_transcribes(hub, build, eval_corpus):
    samples = eval_corpus.utterances[0].samples()
    (expected,) = Recognizer.open(build / "fp32").transcribe([("a", samples)])
    (found,) = Recognizer.open("someone/model", variant="fp32").transcribe([("a", samples)])
    assert found.tokens == expected.tokens and found.tokens
    assert files_asked(hub) and not [name for name in files_asked(hub) if name.startswith(("other/", "README"))]
    hub.asked.clear()
    Recognizer.open("someone/model", variant="fp32")
    assert files_asked(hub) == []
    hub.down = True  # what was downloaded serves without the Hub
    Recognizer.open("someone/model", variant="fp32")
    with pytest.raises(ArtifactError, match="could be downloaded"):
        Recognizer.open("someone/model", variant="other")


def test_the_variant_of_a_package_where_none_is_named(hub):
    assert variant_folder("someone/model").name == "fp32"  # the one that has a default's name
    with pytest.raises(UsageError, match=r"(?s)no variant int8-static.*fp32, other"):
        variant_folder("someone/model", "int8-static")
    (hub.root / "fp32").rename(hub.root / "mine")
    with pytest.raises(UsageError, match=r"(?s)several variants.*mine, other.*--variant mine"):
        variant_folder("someone/model")
    shutil.rmtree(hub.root / "mine")
    assert variant_folder("someone/model").name == "other"  # the only one
    shutil.rmtree(hub.root / "other")
    with pytest.raises(ArtifactError, match="no package of nemoport"):
        Recognizer.open("someone/model", variant="fp32")


@pytest.mark.parametrize(
    "there, chosen",
    [
        (["fp32", "int8-dynamic", "int8-weight", "kv-fp32", "kv-int8-weight"], "kv-int8-weight"),
        (["fp32", "int8-dynamic", "int8-weight", "kv-fp32"], "int8-weight"),
        (["fp16", "fp32", "kv-fp32"], "kv-fp32"),
        (["smoothed"], "smoothed"),
        (["a", "b"], None),
    ],
)
def test_the_variant_of_a_local_folder_where_none_is_named(tmp_path, there, chosen):
    (tmp_path / "config.json").touch()
    for name in there:
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").touch()
    assert variant_folder(tmp_path) == (tmp_path / chosen if chosen else tmp_path)
    assert variant_folder(tmp_path / there[0]) == tmp_path / there[0]  # itself


def test_a_damaged_download_is_refused_and_fetched_again(hub):
    graph = next((hub.root / "fp32").glob("encoder_model.onnx"))
    content = graph.read_bytes()
    graph.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for _ in range(2):
        with pytest.raises(ArtifactError, match="damaged"):
            Recognizer.open("someone/model", variant="fp32")


@pytest.mark.parametrize("name", ["someone/absent", "nowhere"])
def test_what_is_nowhere_is_refused(hub, name):
    with pytest.raises(ArtifactError, match="There is no"):
        Recognizer.open(name, variant="fp32")


@pytest.mark.parametrize("variant", ["../fp32", "a/b", "", "..", "/etc"])
def test_a_variant_is_a_name(build, variant):
    with pytest.raises(UsageError, match="not the name of a variant"):
        variant_folder(build, variant)


def test_a_variant_in_a_local_folder(build, monkeypatch):
    assert variant_folder(build, "fp32") == build / "fp32" == variant_folder(build / "fp32")
    assert variant_folder("absent") == Path("absent")
