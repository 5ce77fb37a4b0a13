"""parakeet.js beside our page in Chromium: one offline package, the same recordings, in turn; a table of docs/browser.md.

    python bench/web_peer.py BUILD --npm build/consumers/node --variant fp32 --variant int8-smoothquant --threads 1,2

BUILD: of an offline TDT model whose predictor has two layers of 640, which is what parakeet.js takes (`make consumers` makes one,
build/consumers/offline-tdt, and the folder of npm packages). Each has a Chromium of its own, both are open at once and transcribe
each recording in turn, the first round not counted. Figures are those of bench/web.py.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import soundfile

import web
from nemoport.package.layouts import load_layout
from nemoport.package.layouts.onnx_asr import suffix_of
from nemoport.speech.corpus import Utterance, read_corpus
from nemoport.web.server import ISOLATION, server
from nemoport.web.site import write_page

HERE = Path(__file__).resolve().parent
AUDIO = HERE.parent / "reference" / "audio"
COLUMNS = (
    "variant",
    "threads",
    "recognizer",
    "audio s a processor s",
    "times real time",
    "peak MB loading",
    "peak MB",
    "tokens other",
)


class _Isolated(SimpleHTTPRequestHandler):
    """Sends the headers that threads need, and no more."""

    def end_headers(self) -> None:
        for name, value in ISOLATION.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


class ParakeetPage:
    """parakeet.js with a variant of a package, in a tab. folder: that the page is served from."""

    def __init__(self, opened: web.Tab, profile: Path, url: str, package: Path, variant: str, threads: int):
        self.tab, self.process = opened, 0
        opened.navigate(f"{url}parakeet.html")
        opened.wait("globalThis.ready", 60)
        suffix = suffix_of(variant)
        names = {"encoder": f"encoder-model{suffix}.onnx.data", "decoder": f"decoder_joint-model{suffix}.onnx.data"}
        data = [part for part, name in names.items() if (package / name).exists()]
        bands = json.loads((package / "config.json").read_text())["features_size"]
        job = {"folder": f"{url}{package.name}", "suffix": suffix, "data": data, "bands": bands, "threads": threads}
        opened.run(f"load({json.dumps(job)})")
        self.process = web.renderer(profile)

    def transcribe(self, recording: Path) -> tuple[list[int], float]:
        found = self.tab.run(f"transcribe('/recordings/{recording.with_suffix('.f32').name}')")
        return found["tokens"], found["seconds"]


def site(folder: Path, npm: Path, package: Path, recordings: Path) -> None:
    """Links what the page of parakeet.js is served from."""
    links = {"parakeet.html": HERE / "browser" / "parakeet.html", "node_modules": npm / "node_modules"}
    for name, target in {**links, package.name: package, "recordings": recordings}.items():
        (folder / name).symlink_to(target.resolve())


def write_recordings(folder: Path, utterances: Sequence[Utterance]) -> list[Path]:
    """Writes each as WAV, f32, and as bare f32 beside it: the same samples for both."""
    paths = []
    for number, utterance in enumerate(utterances):
        path, samples = folder / f"{number}.wav", utterance.samples()
        soundfile.write(path, samples, 16000, subtype="FLOAT")
        path.with_suffix(".f32").write_bytes(samples.astype("<f4").tobytes())
        paths.append(path)
    return paths


def other(ours: list[list[int]], theirs: list[list[int]]) -> str:
    from rapidfuzz.distance import Levenshtein

    differing = sum(Levenshtein.distance(a, b) for a, b in zip(ours, theirs, strict=True))
    return f"{differing} of {sum(map(len, ours))}"


def rows(url: str, variant: str, threads: int, recordings: Sequence[Path], package: Path, options) -> list[list[str]]:
    """Runs both, and returns a row of each."""
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        (work / "site").mkdir()
        site(work / "site", options.npm, package, recordings[0].parent)
        served = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Isolated, directory=str(work / "site")))
        threading.Thread(target=served.serve_forever, daemon=True).start()
        with web.tab(work / "a") as one, web.tab(work / "b") as two:
            ours = web.OurPage(one, work / "a", url, options.build, variant, threads, options)
            theirs = ParakeetPage(two, work / "b", f"http://127.0.0.1:{served.server_port}/", package, variant, threads)
            pages = {"this page": ours, f"parakeet.js {options.version}": theirs}
            loading = {name: web.memory(page.process, "VmHWM") for name, page in pages.items()}
            tokens = {name: [page.transcribe(path)[0] for path in recordings] for name, page in pages.items()}
            work_s, walls = {name: [] for name in pages}, {name: [] for name in pages}
            for _ in range(options.rounds):
                for path in recordings:
                    for name, page in pages.items():
                        before = web.processor_s(page.process)
                        walls[name].append(page.transcribe(path)[1])
                        work_s[name].append(web.processor_s(page.process) - before)
                        time.sleep(0.2)  # threads spin on for a while
            peaks = {name: web.memory(page.process, "VmHWM") for name, page in pages.items()}
        served.shutdown()
    seconds = sum(soundfile.info(path).duration for path in recordings)
    a, b = tokens.values()
    return [
        [
            variant, str(threads), name, f"{options.rounds * seconds / sum(work_s[name]):.1f}",
            f"{statistics.median(seconds_of(recordings, options.rounds, walls[name])):.1f}",
            f"{loading[name]:.0f}", f"{peaks[name]:.0f}", other(a, b) if page is theirs else "",
        ]
        for name, page in pages.items()
    ]  # fmt: skip


def seconds_of(recordings: Sequence[Path], rounds: int, walls: list[float]) -> list[float]:
    """Times real time of each transcription."""
    return [soundfile.info(path).duration / wall for path, wall in zip(list(recordings) * rounds, walls, strict=True)]


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path)
    parser.add_argument("--npm", type=Path, default=Path("build/consumers/node"), help="the folder of npm packages")
    parser.add_argument("--variant", action="append", required=True, help="repeat for several")
    parser.add_argument("--threads", default="1", help="such as 1,2")
    parser.add_argument("--recordings", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--site", type=Path, default=Path("build/web"), help="our page, which is written there first")
    options = parser.parse_args()
    options.device, options.language = "wasm", "auto"
    options.version = json.loads((options.npm / "node_modules" / "parakeet.js" / "package.json").read_text())["version"]
    options.site.mkdir(parents=True, exist_ok=True)
    write_page(options.site)
    serving = server(options.site, 0)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    every = read_corpus(AUDIO / "eval-tdt.jsonl", 16000).utterances
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS), flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        (folder := Path(scratch) / "recordings").mkdir()
        recordings = write_recordings(folder, every[:: len(every) // options.recordings][: options.recordings])
        for variant in options.variant:
            (package := Path(scratch) / f"package-{variant}").mkdir()
            load_layout("parakeet-js").lay_out(options.build, [variant], package)
            for threads in map(int, options.threads.split(",")):
                for row in rows(f"http://127.0.0.1:{serving.server_port}/", variant, threads, recordings, package, options):
                    print("| " + " | ".join(row) + " |", flush=True)
    serving.shutdown()


if __name__ == "__main__":
    main()
