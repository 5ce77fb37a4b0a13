"""The examples: each is run as a reader runs it, on a package, with a recording in place of a microphone or a client."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import onnxruntime
import pytest
import soundfile

from nemoport import Recognizer

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
CLIPS = [ROOT / "reference" / "audio" / "eval" / f"{number:03}.flac" for number in (1, 3)]
INCLUDES = (
    os.environ.get("ONNXRUNTIME_INCLUDE", ""),
    "/usr/include/onnxruntime",
    "/usr/local/include/onnxruntime",
    "/usr/include",
)


@pytest.fixture(scope="module")
def variant(docs_package):
    return docs_package / "kv-int8-weight"


@pytest.fixture(scope="module")
def recognizer(variant):
    return Recognizer.open(variant, threads=1)


@pytest.fixture
def clip(recognizer):
    """A recording, its samples and what nemoport finds in it."""
    samples, rate = soundfile.read(CLIPS[0], dtype="float32")
    return SimpleNamespace(path=CLIPS[0], samples=samples, rate=rate, found=recognizer.transcribe_file(CLIPS[0]))


def test_plain_onnxruntime_gives_the_same_tokens(docs_package, variant):
    stream_of = runpy.run_path(str(EXAMPLES / "streaming_numpy.py"))["Stream"]
    for lookahead, packet, path in ((0, 1600, CLIPS[0]), (1, 777, CLIPS[1]), (13, 16000, CLIPS[0])):
        samples, _ = soundfile.read(path, dtype="float32")
        samples = samples[: len(samples) // (1 if lookahead else 3)]  # chunks of 80 ms take long
        stream = stream_of(docs_package, "kv-int8-weight", lookahead)
        for at in range(0, len(samples), packet):
            stream.feed(samples[at : at + packet])
        stream.finish()
        (found,) = Recognizer.open(variant, lookahead, threads=1).transcribe(samples)
        assert tuple(stream.tokens) == found.tokens and found.tokens, lookahead


def test_plain_onnxruntime_needs_no_nemoport(docs_package, clip):
    code = (
        f"import sys; sys.modules['nemoport'] = None; sys.argv = {['x', str(docs_package), 'kv-int8-weight', str(clip.path)]!r}\n"
    )
    code += f"import runpy; runpy.run_path({str(EXAMPLES / 'streaming_numpy.py')!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == clip.found.text, done.stderr


def test_microphone(variant, clip, monkeypatch, capsys):
    """A fake sounddevice gives the recording in packets, then Ctrl-C."""

    class InputStream:
        def __init__(self, *, samplerate, channels, dtype, callback):
            assert (samplerate, channels, dtype) == (clip.rate, 1, "float32")
            self.callback = callback

        def __enter__(self):
            for at in range(0, len(clip.samples), 1600):
                packet = clip.samples[at : at + 1600, None]
                self.callback(packet, len(packet), None, None)

        def __exit__(self, *_):
            pass

    class Packets(list):
        put = list.append

        def get(self):
            if not self:
                raise KeyboardInterrupt
            return self.pop(0)

    fake = ModuleType("sounddevice")
    monkeypatch.setattr(fake, "InputStream", InputStream, raising=False)
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    monkeypatch.setattr("queue.Queue", Packets)
    monkeypatch.setattr(sys, "argv", ["microphone.py", str(variant)])
    runpy.run_path(str(EXAMPLES / "microphone.py"), run_name="__main__")
    lines = [line.split("\r")[-1] for line in capsys.readouterr().out.split("\n")]
    assert " ".join(line for line in lines if line) == clip.found.text
    assert len((EXAMPLES / "microphone.py").read_text().splitlines()) < 30


@pytest.fixture
def client(variant, monkeypatch):
    testclient = pytest.importorskip("fastapi.testclient")
    pytest.importorskip("python_multipart")
    monkeypatch.setenv("NEMOPORT_VARIANT", str(variant))
    with testclient.TestClient(runpy.run_path(str(EXAMPLES / "server.py"))["app"]) as opened:
        yield opened


def test_server_takes_a_file(client, clip):
    answer = client.post("/transcribe", files={"file": (clip.path.name, clip.path.read_bytes())})
    found = answer.json()
    assert answer.status_code == 200 and found["text"] == clip.found.text
    assert [word["text"] for word in found["words"]] == [word.text for word in clip.found.words]
    refused = client.post("/transcribe", files={"file": ("a.wav", b"not audio")})
    assert refused.status_code == 422 and "Traceback" not in refused.text


@pytest.mark.parametrize("size", [3201, 64000])
def test_server_streams(client, clip, recognizer, size):
    """Packets that end within a sample too; two clients at once."""
    sent = (clip.samples * 2**15).astype("<i2").tobytes()
    with client.websocket_connect("/live") as one, client.websocket_connect("/live") as other:
        for at in range(0, len(sent), size):
            one.send_bytes(sent[at : at + size])
            other.send_bytes(sent[at : at + size])
        texts = []
        for socket in (one, other):
            socket.send_bytes(b"")
            texts.append("".join(iter(socket.receive_text, "")))
    assert texts == [clip.found.text] * 2


def test_server_goes_on_when_a_client_leaves(client, clip):
    with client.websocket_connect("/live") as socket:
        socket.send_bytes(bytes(32000))
    assert client.post("/transcribe", files={"file": ("a.flac", clip.path.read_bytes())}).status_code == 200


def test_notebook_runs_from_top_to_bottom(docs_package, clip, tmp_path, monkeypatch, capsys):
    notebook = json.loads((EXAMPLES / "package.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "streaming-en").symlink_to(docs_package)
    shutil.copy(clip.path, tmp_path / "talk.flac")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for number, cell in enumerate(cells):
        exec(compile(cell, f"cell {number}", "exec"), names)
    shown = capsys.readouterr().out
    assert shown.count(clip.found.text) > 2 and " 1120 ms" in shown
    assert all(not cell.get("outputs") for cell in notebook["cells"])


def test_cpp_gives_the_same_text(docs_package, variant, tmp_path):
    include = next((folder for folder in INCLUDES if folder and Path(folder, "onnxruntime_c_api.h").is_file()), None)
    if not include or not shutil.which("g++"):
        pytest.skip("needs g++ and onnxruntime_c_api.h, see examples/README.md")
    library = next(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*"))
    (tmp_path / "libonnxruntime.so.1").symlink_to(library)
    program = tmp_path / "stream"
    command = ["g++", "-std=c++17", "-O2", "-Wall", f"-I{include}", str(EXAMPLES / "cpp" / "stream.cpp")]
    command += [str(tmp_path / "libonnxruntime.so.1"), f"-Wl,-rpath,{tmp_path}", "-o", str(program)]
    subprocess.run(command, check=True, capture_output=True)
    for path in CLIPS:
        wav = tmp_path / f"{path.stem}.wav"
        soundfile.write(wav, *soundfile.read(path, dtype="int16"))
        for lookahead in (1, 13):
            done = subprocess.run(
                [program, docs_package, "kv-int8-weight", wav, str(lookahead)], capture_output=True, text=True, check=False
            )
            expected = Recognizer.open(variant, lookahead, threads=1).transcribe_file(wav).text
            assert done.returncode == 0 and done.stdout.strip() == expected, done.stderr
    wrong = subprocess.run([program, docs_package, "kv-int8-weight", CLIPS[0]], capture_output=True, text=True, check=False)
    assert wrong.returncode == 1 and "16-bit mono WAV" in wrong.stderr
