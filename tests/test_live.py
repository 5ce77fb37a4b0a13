"""`nemoport transcribe -`: what is piped in is read as what it is; signals end the input; JSON; folders, patterns, manifests."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import soundfile

from nemoport.cli import main
from nemoport.standard_input import Packets, format_of

RATE = 16000


@pytest.fixture(scope="module")
def spoken(eval_corpus):
    return eval_corpus.utterances[0]


@pytest.fixture
def run(build, monkeypatch, capsys):
    def transcribe(*options, piped=b""):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(piped))))
        code = main(["transcribe", str(build / "fp32"), *map(str, options), "--threads", "1"])
        return code, *capsys.readouterr()

    return transcribe


def encoded(samples, rate_hz=RATE, **options):
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, **options)
    return file.getvalue()


def stereo(samples, rate_hz):
    import soxr

    other = soxr.resample(samples, RATE, rate_hz)
    return np.stack([other, other], 1)


CONTAINERS = {
    "wav": (44100, dict(format="WAV", subtype="PCM_24")),
    "gsm": (8000, dict(format="WAV", subtype="GSM610")),
    "flac": (48000, dict(format="FLAC")),
    "ogg": (22050, dict(format="OGG", subtype="VORBIS")),
    "mp3": (44100, dict(format="MP3")),
    "w64": (16000, dict(format="W64")),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_is_read_as_a_file_is(run, spoken, tmp_path, name):
    rate_hz, options = CONTAINERS[name]
    samples = stereo(spoken.samples(), rate_hz)
    content = encoded(samples[:, 0] if name == "gsm" else samples, rate_hz, **options)
    (tmp_path / "a").write_bytes(content)
    code, out, _ = run("-", piped=content)
    assert code == 0 and f"{tmp_path / 'a'}\t{out}" == run(tmp_path / "a")[1]
    assert len(out) > 5


def test_raw_samples_of_another_form(run, spoken):
    samples = spoken.samples()
    expected = run("-", piped=(samples * 32768).astype("<i2").tobytes())[1]
    two = np.stack([np.zeros_like(samples), samples], 1).astype("<f4").tobytes()
    form = ("--input-format", "f32le", "--input-channels", 2, "--channel", 1)
    assert run("-", *form, piped=two)[1] == expected
    telephone = stereo(samples, 8000)[:, 0]
    as_wav = run("-", piped=encoded(telephone, 8000, format="WAV", subtype="FLOAT"))[1]
    assert run("-", "--input-format", "f32le", "--input-rate", 8000, piped=telephone.astype("<f4").tobytes())[1] == as_wav


def test_first_bytes():
    def found(content):
        return format_of(Packets(io.BytesIO(content)))

    mp3 = encoded(np.random.default_rng(0).uniform(-0.1, 0.1, 40_000), 44100, format="MP3")
    assert found(mp3[mp3.index(b"\xff\xfb") :]) == "MP3"
    assert found(b"\0\0\0\x20ftypM4A ").startswith("MPEG-4") and found(b"\x1a\x45\xdf\xa3aaaa").startswith("Matroska")
    for raw in (b"", b"\0", b"\xff\xfb" * 8000, b"\xff\xfb\x90\0" + bytes(8000), b"\xff\xff\xfe\xff" * 400, b"RIFF" + bytes(100)):
        assert found(raw) in (None, "RIFF")


def test_json_live(run, spoken):
    piped = (np.concatenate([spoken.samples(), np.zeros(2 * RATE)]) * 32768).astype("<i2").tobytes()
    for options in ((), ("--beam", "4")):
        plain = run("-", *options, piped=piped)[1].rstrip("\n")
        code, out, _ = run("-", "--json", *options, piped=piped)
        *updates, end = map(json.loads, out.splitlines())
        assert code == 0 and [update["type"] for update in updates] == ["update"] * len(updates) and updates
        assert (end["type"], end["id"], end["text"]) == ("end", "-", plain)
        assert "".join(update["text"] for update in updates) == plain
        assert [t for u in updates for t in u["tokens"]] == end["tokens"]
        assert [t for u in updates for t in u["token_seconds"]] == end["token_seconds"]
        assert end["audio_seconds"] == pytest.approx(len(piped) / 2 / RATE)


def test_what_came_before_bad_samples_is_printed(run, spoken):
    samples = np.concatenate([spoken.samples(), np.zeros(600_000), [np.nan]]).astype("f4")
    code, out, error = run("-", piped=encoded(samples, format="WAV", subtype="FLOAT"))
    assert code == 2 and "not numbers" in error and out.split() == run(spoken.path)[1].split("\t")[1].split()


@pytest.mark.parametrize(
    "options",
    [("-", "a.wav"), ("-", "--streams", "1"), ("a.wav", "--input-rate", "8000"), ("-", "--input-rate", "0"), ()]
    + [("-", "--format", "srt"), ("-", "--output", "x"), ("-", "--input-channels", "2", "--channel", "2")],
)
def test_what_does_nothing_is_refused(run, options):
    code, out, error = run(*options, piped=bytes(32000))
    assert code == 2 and not out and "Traceback" not in error


def test_a_header_beside_a_form_of_raw_samples_is_refused(run, spoken):
    code, _, error = run("-", "--input-rate", "8000", piped=spoken.path.read_bytes())
    assert code == 2 and "header of its own" in error


def test_a_damaged_input_is_named_by_its_kind(run, tmp_path):
    code, out, error = run("-", piped=b"fLaC" + bytes(100))
    assert (code, out) == (2, "") and "Standard input cannot be read" in error and "fLaC" in error and "/audio" not in error


def test_an_empty_input_is_named(run):
    assert run("-")[0] == 2 and "Standard input is empty" in run("-")[2]


def test_folders_patterns_and_channels(run, spoken, tmp_path):
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "notes.txt").write_text("no audio")
    samples = spoken.samples()
    for name in ("z.wav", "b/c/y.FLAC", "b/x.wav", ".hidden/w.wav"):
        soundfile.write(tmp_path / name, np.stack([0 * samples, samples], 1), RATE)
    names = [str(tmp_path / name) for name in ("b/c/y.FLAC", "b/x.wav", "z.wav")]
    code, out, _ = run(tmp_path, "--channel", "1")
    assert code == 0 and [line.split("\t")[0] for line in out.splitlines()] == names
    assert {line.split("\t")[1] for line in out.splitlines()} == {run(spoken.path)[1].split("\t")[1].strip()}
    assert [line.split("\t")[0] for line in run(tmp_path / "**" / "*.wav")[1].splitlines()] == names[1:]
    code, out, error = run(tmp_path / "*.mp3", tmp_path / "z.wav", "--channel", "2")
    assert code == 2 and not out and "no audio at" in error and "has no channel 2" in error


def test_a_manifest(run, spoken, tmp_path):
    rows = [
        {"audio_filepath": str(spoken.path), "lang": "en"},
        {"audio_filepath": str(spoken.path), "offset": 0.5, "duration": 0.5},
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    code, out, _ = run("--manifest", tmp_path / "m.jsonl", "--json")
    whole, cut = map(json.loads, out.splitlines())
    assert code == 0 and whole["text"] and cut["audio_seconds"] == 0.5


# A shell that runs the tests in the background lets its children ignore SIGINT; a terminal does not.
READY = """import signal, sys
from contextlib import contextmanager
from nemoport.cli import live, main
signal.signal(signal.SIGINT, signal.default_int_handler)
@contextmanager
def ready(end, end_of_input=live.end_of_input):
    with end_of_input(end):
        print("ready", file=sys.stderr, flush=True)
        yield
live.end_of_input = ready
sys.exit(main(["transcribe", *sys.argv[1:]]))
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("suffix", ["raw", "flac"])  # live; to a temporary file
def test_a_signal_ends_the_input(build, spoken, run, number, suffix):
    samples = spoken.samples()
    piped = (samples * 32768).astype("<i2").tobytes() if suffix == "raw" else spoken.path.read_bytes()
    with subprocess.Popen([sys.executable, "-c", READY, build / "fp32", "-"], stdin=-1, stdout=-1, stderr=-1) as process:
        process.stdin.write(piped)
        process.stdin.flush()
        assert process.stderr.readline() == b"ready\n"
        time.sleep(0.3)  # until what was written is read
        process.send_signal(number)
        (late := threading.Timer(30, process.kill)).start()  # stdin stays open
        out, error = process.stdout.read().decode(), process.stderr.read().decode()
        assert process.wait() == 0, error
        late.cancel()
    assert out == run("-", piped=piped)[1] and not error


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_second_signal_ends_the_process():
    program = (
        "import signal, sys, time\n"
        "from nemoport.ending import end_of_input, orderly_end\n"
        "ended = []\n"
        "with orderly_end(), end_of_input(lambda: ended.append(1)):\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    assert ended == [1]\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    print('not ended')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (143, "")


def test_an_output_that_cannot_encode(monkeypatch):
    from nemoport.cli.output import print_text

    ascii_only = io.TextIOWrapper(written := io.BytesIO(), "ascii")
    monkeypatch.setattr("sys.stdout", ascii_only)
    print_text("caf\u00e9\n")
    print_text('{"text": "caf\u00e9"}\n', is_json=True)
    first, second = written.getvalue().decode("ascii").splitlines()
    assert first == "caf\\xe9" and json.loads(second) == {"text": "caf\u00e9"}


@pytest.mark.skipif(os.name == "nt", reason="head")
def test_a_closed_output_ends_quietly():
    program = "import sys; from nemoport import cli; from nemoport.cli.output import print_text\n"
    program += "class Parser:\n    quiet, extras = True, ''\n    def parse_args(self, a): return self\n"
    program += "    def run(self, options):\n        while True: print_text('x' * 9999)\n"
    program += "cli.parser = Parser\nsys.exit(cli.main([]))"
    with subprocess.Popen([sys.executable, "-c", program], stdout=-1, stderr=-1) as process:
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 141


def test_a_line_for_each_utterance(run, eval_corpus):
    """Each ends with its pause, with the words and times of the whole stream; JSON has them all."""
    silence = np.zeros(2 * RATE, np.float32)
    audio = np.concatenate([part for u in eval_corpus.utterances[:3] for part in (u.samples(), silence)])
    piped = (audio * 32767).astype("<i2").tobytes()
    whole = json.loads(run("-", "--json", piped=piped)[1].splitlines()[-1])
    code, out, err = run("-", "--pause", "1", piped=piped)
    assert (code, err) == (0, "") and len(out.splitlines()) >= 3
    assert " ".join(out.splitlines()) == whole["text"]
    code, out, _ = run("-", "--pause", "1", "--json", piped=piped)
    found = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [word for one in found for word in one["words"]] == whole["words"]
    assert all(one["type"] == "utterance" and one["start"] == one["words"][0]["start"] for one in found)


def test_what_came_before_a_fault_is_printed_as_utterances_too(run, spoken):
    bad = np.concatenate([spoken.samples(), np.zeros(3 * RATE, np.float32), np.full(RATE, np.nan, np.float32)])
    code, out, err = run("-", "--pause", "1", "--input-format", "f32le", piped=bad.astype("<f4").tobytes())
    assert code == 2 and out.strip() == spoken_text(run, spoken) and "not numbers" in err


def spoken_text(run, spoken):
    return run("-", "--input-format", "f32le", piped=spoken.samples().astype("<f4").tobytes())[1].strip()


@pytest.mark.parametrize("options", [["-", "--pause", "0"], ["-", "--pause", "-1"], ["a.wav", "--pause", "1"]])
def test_a_pause_that_cannot_be_is_refused(run, options):
    code, out, err = run(*options, piped=b"\0" * 32000)
    assert code == 2 and not out and "--pause" in err
