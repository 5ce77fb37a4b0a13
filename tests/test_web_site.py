"""The page as a folder: the server for it, and the layout web. What needs a browser is in test_web_browser.py."""

import http.client
import json
import re
import subprocess
import threading
from contextlib import contextmanager

import numpy as np
import pytest
from test_package import make

from nemoport.errors import ArtifactError, UsageError
from nemoport.package.layouts import web
from nemoport.package.verify import verify
from nemoport.web import site
from nemoport.web.__main__ import main
from nemoport.web.server import content_policy, server

PAGE = site.PAGE


@pytest.fixture
def runtime(monkeypatch):
    """Stands for npm and onnxruntime-web, of which there are 41 MB."""

    def write(folder):
        folder.mkdir()
        for name in (*site.RUNTIME_FILES, "package.json"):
            (folder / name).write_text(name)
        (folder / site.LOCK.name).write_bytes(site.LOCK.read_bytes())
        written.append(folder)

    written = []
    monkeypatch.setattr(site, "write_runtime", write)
    return written


@contextmanager
def serving(folder):
    one = server(folder, 0)
    threading.Thread(target=one.serve_forever, daemon=True).start()
    try:
        yield one.server_port
    finally:
        one.shutdown()
        one.server_close()


def get(port, path, host=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return found


def test_what_is_served_has_the_headers_that_threads_need(tmp_path, runtime):
    site.write_page(tmp_path)
    (tmp_path / "ort" / "a.wasm").write_bytes(b"\0asm")
    with serving(tmp_path) as port:
        for path, kind in (("/", "text/html"), ("/worker.js", "text/javascript"), ("/ort/a.wasm", "application/wasm")):
            status, headers, _ = get(port, path)
            assert (status, headers["Content-type"]) == (200, kind)
            assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
            assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
            assert headers["Cross-Origin-Resource-Policy"] == "same-origin"  # no other site takes it in
            assert headers["Content-Security-Policy"] == content_policy()
        assert get(port, "/asr/")[0] == get(port, "/../pyproject.toml")[0] == 404  # no lists, nothing outside
        assert get(port, "/", "localhost:80")[0] == 200 and get(port, "/", "evil.example:80")[0] == 403


def test_the_policy_lets_no_script_of_others_run():
    policy = dict(part.split(" ", 1) for part in content_policy().split("; "))
    assert policy["default-src"] == "'none'" and policy["script-src"] == "'self' 'wasm-unsafe-eval'"
    assert policy["worker-src"] == policy["style-src"] == "'self'"
    html = (PAGE / "index.html").read_text("utf-8")
    assert not re.search(r"<script(?![^>]* src=)|\son\w+=|\sstyle=|<style", html)  # which the policy would stop
    own = [PAGE / name for name in site.page_files()]
    named = {found for path in own for found in re.findall(r"https?://([\w.*-]+)", path.read_text("utf-8"))}
    assert named == {"localhost", "127.0.0.1", "www.w3.org"}  # of the policy; the namespace of the icon


def test_every_file_that_the_page_imports_is_kept_offline():
    """The service worker keeps what its pattern matches."""
    pattern = re.search(r"const OWN = /(.+)/u;", (PAGE / "sw.js").read_text("utf-8"))[1].replace("\\/", "/")
    runtime_files = [f"ort/{name}" for name in site.RUNTIME_FILES]
    kept = {name for name in [*site.page_files(), *runtime_files] if re.search(pattern, f"/page/{name}")}
    assert kept == {*site.page_files(), *runtime_files} - {"sw.js"}
    assert not any(
        re.search(pattern, f"/page/{name}") for name in ("config.json", "manifest.json", "fp32/encoder_model.onnx.data")
    )


def test_modules_import_what_exists():
    for path in PAGE.rglob("*.js"):
        for target in re.findall(r'(?:from|import\() ?"(\.[^"]+)"', path.read_text("utf-8")):
            place = (path.parent / target).resolve()
            assert place.is_file() or (place.parent.name, place.name in site.RUNTIME_FILES) == ("ort", True), (path, target)
        assert len(path.read_text("utf-8").splitlines()) <= 260, path


def test_the_lock_names_one_version_by_its_hash():
    lock = json.loads(site.LOCK.read_text("utf-8"))
    wanted = json.loads((site.HERE / "package.json").read_text("utf-8"))["dependencies"]
    packages = {name.removeprefix("node_modules/"): one for name, one in lock["packages"].items() if name}
    assert all(packages[name]["version"] == version for name, version in wanted.items())
    assert all(one["integrity"].startswith("sha512-") and "resolved" not in one for one in packages.values())


def test_onnxruntime_web_stays_until_the_lock_changes(tmp_path, runtime):
    site.write_page(tmp_path)
    site.write_page(tmp_path)
    assert len(runtime) == 1
    (tmp_path / "ort" / site.LOCK.name).write_text("older")
    site.write_page(tmp_path)
    assert len(runtime) == 2 and (tmp_path / "ort" / site.RUNTIME_FILES[0]).is_file()


def test_without_npm(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(site, "_programs", lambda: str(tmp_path))
    assert main([str(tmp_path / "site")]) == 2
    assert "npm" in capsys.readouterr().err and not (tmp_path / "site" / "ort").exists()


def test_an_npm_that_fails_is_quoted(tmp_path, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "EAI_AGAIN: no network")
    monkeypatch.setattr(site.subprocess, "run", lambda *arguments, **options: failed)
    monkeypatch.setattr(site.shutil, "which", lambda *arguments, **options: "npm")
    with pytest.raises(ArtifactError, match="no network"):
        site.write_runtime(tmp_path / "ort")
    assert not (tmp_path / "ort").exists()


def test_a_folder_without_a_page_and_a_port_that_is_taken(tmp_path):
    with pytest.raises(UsageError, match="has no page"):
        server(tmp_path)
    (tmp_path / "index.html").touch()
    with serving(tmp_path) as port, pytest.raises(UsageError, match="cannot be used"):
        server(tmp_path, port)


@pytest.fixture
def build(docs_package):
    return docs_package.parent / "build"


def test_the_layout_is_the_page_and_the_package(build, tmp_path, runtime):
    dist = make(build, tmp_path / "dist", ["kv-int8-weight"], language="en", layout="web")
    assert any("kv-int8-weight: loads in onnxruntime" in line for line in verify(dist))
    assert {"index.html", "worker.js", "asr/mel.js", "ort/ort.wasm.min.mjs", "config.json", "shared/tokens.txt"} <= {
        path.relative_to(dist).as_posix() for path in dist.rglob("*")
    }
    assert '<meta name="model" content="./" />' in (dist / "index.html").read_text("utf-8")
    assert '<meta name="model" content="" />' in (PAGE / "index.html").read_text("utf-8")
    head = (dist / "README.md").read_text("utf-8").split("---\n")[1]
    assert 'sdk: "static"' in head and '"cross-origin-embedder-policy": "require-corp"' in head
    for name in ("encoder_model.onnx", "encoder_model.onnx.data"):
        assert (dist / "kv-int8-weight" / name).read_bytes() == (build / "kv-int8-weight" / name).read_bytes()
    assert not list(dist.rglob("*.partial"))


def test_large_weights_are_divided(build, tmp_path, runtime, monkeypatch):
    """By themselves where they are too large for a browser, and smaller where a size is asked for."""
    whole = make(build, tmp_path / "whole", ["kv-int8-weight"], layout="web")
    monkeypatch.setattr(web, "LARGEST_BYTES", 3_000_000)
    dist = make(build, tmp_path / "dist", ["kv-int8-weight"], layout="web", shard_bytes=1_000_000)
    files = sorted(path.name for path in (dist / "kv-int8-weight").iterdir())
    data = [name for name in files if ".data" in name]
    assert len([name for name in data if name.startswith("encoder")]) > 5 and "decoder_model.onnx.data" in data
    assert all((dist / "kv-int8-weight" / name).stat().st_size <= 1_000_000 for name in data)
    import onnxruntime as ort

    mel = np.random.default_rng(0).normal(size=(1, 128, 49)).astype(np.float32)
    frames = []
    for folder in (whole, dist):
        encoder = ort.InferenceSession(folder / "kv-int8-weight" / "encoder_model.onnx")
        feeds = {i.name: np.zeros([n if isinstance(n, int) else 1 for n in i.shape], np.float32) for i in encoder.get_inputs()}
        feeds |= {"audio_signal": mel, "length": np.array([49]), "cache_len": np.zeros(1, np.int64)}
        frames.append(encoder.run(["outputs"], feeds)[0])
    np.testing.assert_array_equal(*frames)


def test_the_command_line_serves_a_package_as_it_is(tmp_path, runtime, capsys):
    (tmp_path / "manifest.json").write_text("{}")
    assert main([str(tmp_path)]) == 2 and not runtime  # no page in it, and none is written over
    assert "has no page" in capsys.readouterr().err
    assert main([str(tmp_path / "new"), "--write-only"]) == 0 and len(runtime) == 1
