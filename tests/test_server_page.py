"""The microphone page of `nemoport serve` in Chromium, whose microphone plays a recording. Slow; skipped without Chromium."""

import base64
import time

import numpy as np
import pytest
import soundfile
import soxr
from chromium import chromium, tab

pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")
from test_server import CLIPS, METRICS, pcm, running  # noqa: E402

from nemoport import Recognizer  # noqa: E402
from nemoport.resampler import Resampler  # noqa: E402
from nemoport.server.limits import Limits  # noqa: E402
from nemoport.server.models import Models, Opening  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.skipif(chromium() is None, reason="no chromium among this machine's programs")]
# Keeps what the page sends.
KEPT = """
globalThis.kept = [];
const send = WebSocket.prototype.send;
WebSocket.prototype.send = function (data) {
  if (typeof data !== "string") kept.push(...new Uint8Array(ArrayBuffer.isView(data) ? data.buffer.slice(0) : data.slice(0)));
  send.call(this, data);
};
"""


def test_the_microphone(docs_package, tmp_path):
    """The page's text is that of what it sent, as a stream alone has it."""
    samples = np.concatenate([pcm(path) for path in CLIPS[:2]])
    fake = tmp_path / "spoken.wav"
    soundfile.write(fake, soxr.resample(samples.astype(np.float32) / 2**15, 16_000, 48_000), 48_000, subtype="PCM_16")
    flags = (
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={fake}%noloop",
    )
    models = Models([Opening(str(docs_package), threads=1)], Limits(), METRICS)
    with running(models) as server, tab(tmp_path / "profile", *flags) as page:
        page.call("Page.addScriptToEvaluateOnNewDocument", source=KEPT)
        page.navigate(server.url("/"))
        page.wait("document.getElementById('state')?.innerText === 'Ready.'")
        page.click("start")
        page.wait("document.getElementById('start').innerText === 'Stop' && kept.length > 0")
        time.sleep(len(samples) / 16_000 + 1)
        page.click("start")
        page.wait("document.getElementById('state').innerText === 'Ended.'")
        shown = page.run("[...document.querySelectorAll('#text p')].map((line) => line.innerText).join(' ')")
        rate = page.run("new AudioContext().sampleRate")
        sent = np.frombuffer(base64.b64decode(page.run("btoa(kept.map((byte) => String.fromCharCode(byte)).join(''))")), "<i2")
        assert page.errors == [] and page.run("document.getElementById('final').innerText") == ""
    models.end()
    resampler = Resampler(int(rate), 16_000)
    resampled = np.concatenate([resampler.feed(sent.astype(np.float32) / 2**15), resampler.finish()])
    (expected,) = Recognizer.open(docs_package, threads=1).transcribe([resampled])
    assert shown == expected.text and len(shown.split()) > 5


def test_no_microphone_and_a_wrong_token(docs_package, tmp_path):
    models = Models([Opening(str(docs_package), threads=1)], Limits(), METRICS)
    with (
        running(models, token="a-token-of-16-characters") as server,
        tab(tmp_path / "profile", "--deny-permission-prompts") as page,
    ):
        page.navigate(server.url("/"))
        page.wait("document.getElementById('state')?.innerText.includes('token')")
        page.set("token", "a-token-of-16-characters")
        page.click("start")
        page.wait("document.getElementById('state').innerText.startsWith('The microphone cannot be used')")
        assert page.run("document.getElementById('start').innerText") == "Start"
    models.end()
