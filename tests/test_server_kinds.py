"""A server with a package of each kind at once: each session has the text of its model alone. Slow: the exports."""

import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")
from test_server import METRICS, Running, events, form, text_of  # noqa: E402
from websockets.exceptions import ConnectionClosed  # noqa: E402

from nemoport import Recognizer  # noqa: E402
from nemoport.formats import event_fields  # noqa: E402
from nemoport.server.actions import Start  # noqa: E402
from nemoport.server.limits import Limits  # noqa: E402
from nemoport.server.models import Models, Opening  # noqa: E402

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parent.parent / "reference"
ENGLISH, MANY, WHOLE = ROOT / "audio" / "eval", ROOT / "audio" / "eval-multi", ROOT / "audio" / "eval-tdt"


def clip(folder, number):
    return soundfile.read(sorted(folder.glob("*.flac"))[number], dtype="int16")[0]


@pytest.fixture(scope="module")
def folders(tmp_path_factory, ctc_checkpoint, eou_build):
    """kind -> the folder of its variant."""
    from nemoport.export.build import export_checkpoint
    from nemoport.export.checkpoint import read_checkpoint
    from nemoport.reference import unified

    base = tmp_path_factory.mktemp("kinds")
    unified.write(base / "unified.nemo")
    made = {"eou": eou_build / "kv-fp32"}
    for kind, path, layout in (
        ("multilingual", ROOT / "checkpoints" / "streaming-multilingual.nemo", "kv"),
        ("tdt", ROOT / "checkpoints" / "offline-tdt.nemo", "nemo"),
        ("unified", base / "unified.nemo", "nemo"),
        ("ctc", ctc_checkpoint("ctc-offline"), "nemo"),
        ("ctc-streaming", ctc_checkpoint("ctc-streaming"), "kv"),
    ):
        export_checkpoint(read_checkpoint(str(path)), base / kind, layout)
        made[kind] = base / kind / ("kv-fp32" if layout == "kv" else "fp32")
    return made


@pytest.fixture(scope="module")
def server(folders):
    models = Models([Opening(str(folder), threads=1) for folder in folders.values()], Limits(), METRICS)
    one = Running(models, sessions=20)
    yield one
    one.end()
    models.end()


def name(folders, kind):
    return f"{folders[kind].parent.name}/{folders[kind].name}"


class Session:
    """A client of one session, which sends a part at a time."""

    def __init__(self, server, folders, kind, **start):
        self.client = server.connect()
        self.client.send(json.dumps({"type": "start", "model": name(folders, kind), **start}))

    def send(self, samples, packet=1600):
        for at in range(0, len(samples), packet):
            self.client.send(samples[at : at + packet].tobytes())

    def end(self):
        with suppress(ConnectionClosed):
            self.client.send('{"type": "end"}')
        found, code = events(self.client)
        assert code == 1000, found[-1]
        return found


class Alone:
    """The utterances of a stream that is alone."""

    def __init__(self, folder, **settings):
        self.recognizer = Recognizer.open(folder, threads=1, **settings)
        self.utterances, self.segments = self.recognizer.utterances(Start().rule), []

    def send(self, samples):
        for at in range(0, len(samples), 1600):
            self.segments += self.utterances.feed(samples[at : at + 1600].astype(np.float32) / 2**15)

    def end(self):
        return [*self.segments, *self.utterances.finish()]

    def text(self, samples):
        self.send(samples)
        return " ".join(segment.text for segment in self.end())


def test_languages_of_sessions_in_one_batch(server, folders):
    """Each has its own; two letters, as OpenAI's clients send, are taken too; one that is unknown ends its own session alone."""
    chosen = {language: clip(MANY, number) for number, language in ((0, "en-US"), (20, "de-DE"), (40, "auto"), (50, "fr"))}
    sessions = {language: Session(server, folders, "multilingual", language=language) for language in chosen}
    wrong = Session(server, folders, "multilingual", language="xx-XX")
    for language, session in sessions.items():
        session.send(chosen[language])
    found, code = events(wrong.client)
    assert code == 1007 and "no language" in found[-1]["message"]
    for language, session in sessions.items():
        expected = Alone(folders["multilingual"], language={"fr": "fr-FR"}.get(language, language)).text(chosen[language])
        assert text_of(session.end()) == expected != "", language


@pytest.mark.parametrize("packet", [1600, 60_000])
def test_a_change_of_language_within_a_stream(server, folders, packet):
    """What was sent before keeps the language before, in whatever packets, and though the server may lag."""
    first, second = clip(MANY, 0), clip(MANY, 20)
    one = Alone(folders["multilingual"], language="en-US")
    one.send(first)
    one.utterances.stream.set_language(one.recognizer.session.spec.prompt.slot("de-DE"))
    session = Session(server, folders, "multilingual", language="en-US")
    session.send(first, packet)
    session.client.send('{"type": "language", "language": "de-DE"}')
    session.send(second, packet)
    expected = one.text(second)
    assert text_of(session.end()) == expected
    unchanged = Alone(folders["multilingual"], language="en-US").text(np.concatenate([first, second]))
    assert expected != unchanged


def test_an_end_of_utterance_of_the_model(server, folders):
    """It is the event of its utterance, and no part of the text."""
    samples = np.concatenate([part for number in (0, 4) for part in (clip(ENGLISH, number), np.zeros(16_000, np.int16))])
    session, one = Session(server, folders, "eou"), Alone(folders["eou"])
    session.send(samples)
    one.send(samples)
    found = [(event["text"], event["event"]) for event in session.end() if event["type"] == "utterance"]
    assert found == [(segment.text, segment.event and event_fields(segment.event)) for segment in one.end()]
    assert any(event for _, event in found) and "<" not in " ".join(text for text, _ in found)


@pytest.mark.parametrize("kind", ["unified", "ctc-streaming"])
def test_windows_and_ctc(server, folders, kind):
    samples = np.concatenate([clip(ENGLISH, 2), clip(ENGLISH, 6)])
    session = Session(server, folders, kind)
    session.send(samples, 777)
    assert text_of(session.end()) == Alone(folders[kind]).text(samples) != ""


@pytest.mark.parametrize("kind", ["tdt", "ctc"])
def test_recordings_of_models_that_do_not_stream(server, folders, kind):
    path = sorted(WHOLE.glob("*.flac"))[3]
    status, answer = server.get(
        "/v1/audio/transcriptions", **form(path, model=name(folders, kind), response_format="verbose_json")
    )
    expected = Recognizer.open(folders[kind], threads=1).transcribe_file(path)
    assert status == 200 and json.loads(answer)["text"] == expected.text
    client = server.connect()
    client.send(json.dumps({"type": "start", "model": name(folders, kind)}))
    found, code = events(client)
    assert code == 1007 and found[-1]["message"] == "This model takes whole recordings."
