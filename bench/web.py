"""Times real time and memory of packages in Chromium, by precision and by threads; a table of docs/browser.md.

python bench/web.py BUILD [BUILD ...] --variant kv-int8-weight --audio reference/audio/eval/066.flac --threads 1,2

Each row is a Chromium of its own with the page of this clone, and a folder that is chosen there, as on a disk. The recording is
transcribed `--rounds` times behind one that is not counted. Processor time is that of the process which holds the page and its
worker (the renderer), so that a busy machine changes it little; memory is the most that it had, and that of the whole page as
Chromium measures it at the end.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from dataclasses import astuple, dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

import soundfile
from chromium import Tab, tab

from nemoport.web.server import server
from nemoport.web.site import write_page

COLUMNS = (
    "package",
    "variant",
    "threads",
    "MB",
    "load s",
    "times real time",
    "audio s a processor s",
    "peak MB loading",
    "peak MB",
    "page MB",
)
GPU = ("--enable-unsafe-webgpu", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Row:
    package: str
    variant: str
    threads: int
    megabytes: float
    load_s: float
    real_time: float
    by_processor: float
    loading_mb: float
    peak_mb: float
    page_mb: float

    def __str__(self) -> str:
        return "| " + " | ".join(f"{x:.4g}" if isinstance(x, float) else str(x) for x in astuple(self)) + " |"


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("builds", nargs="+", type=Path, help="builds or packages")
    parser.add_argument("--variant", action="append", help="repeat for several; default: all of each")
    parser.add_argument("--audio", type=Path, default=Path("reference/audio/eval/066.flac"))
    parser.add_argument("--threads", default="1", help="such as 1,2")
    parser.add_argument("--device", default="wasm", choices=("wasm", "webgpu"))
    parser.add_argument("--language", default="auto", help="of a multilingual model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--site", type=Path, default=Path("build/web"), help="the page, which is written there first")
    options = parser.parse_args()
    options.site.mkdir(parents=True, exist_ok=True)
    write_page(options.site)
    serving = server(options.site, 0)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS), flush=True)
    for build in options.builds:
        found = sorted(path.parent.name for path in build.glob("*/encoder_model.onnx") if "smoothed" not in path.parent.name)
        for variant in [name for name in options.variant or found if name in found]:
            for threads in map(int, options.threads.split(",")):
                print(measured(f"http://127.0.0.1:{serving.server_port}/", build, variant, threads, options), flush=True)
    serving.shutdown()


class OurPage:
    """A variant that the page holds, in a tab."""

    def __init__(self, tab: Tab, profile: Path, url: str, build: Path, variant: str, threads: int, options: argparse.Namespace):
        self.tab = tab
        tab.go(url)
        tab.choose("#folder", build)
        ready(tab, "!document.getElementById('loading').hidden")
        for name, value in (("variant", variant), ("threads", str(threads)), ("device", options.device)):
            tab.set(name, value)
        started = time.perf_counter()
        tab.click("load")
        ready(tab, "document.getElementById('status').innerText === 'Ready.'")
        self.load_s = time.perf_counter() - started
        tab.set("language", options.language)
        self.process = renderer(profile)

    def transcribe(self, recording: Path) -> tuple[list[int], float]:
        """Returns tokens, and the seconds that the page says it worked."""
        self.tab.run("delete document.getElementById('transcript').dataset.tokens")
        self.tab.choose("#recording", recording)
        found = "document.getElementById('transcript').dataset"
        ready(self.tab, f"'tokens' in {found} && !document.body.hasAttribute('aria-busy')")
        speed = float(self.tab.text("speed").split()[0])
        tokens = [int(token) for token in self.tab.run(f"{found}.tokens").split()]
        return tokens, soundfile.info(recording).duration / speed

    def page_mb(self) -> float:
        """What Chromium counts of the whole page."""
        self.tab.run("new Promise((resolve) => setTimeout(resolve, 1000))")
        return self.tab.run("performance.measureUserAgentSpecificMemory().then((found) => found.bytes)") / 1e6


def measured(url: str, build: Path, variant: str, threads: int, options: argparse.Namespace) -> Row:
    """Returns the row of a variant, in a Chromium of its own."""
    seconds = soundfile.info(options.audio).duration
    size = sum(path.stat().st_size for path in (build / variant).iterdir()) / 1e6
    with tempfile.TemporaryDirectory() as folder, tab(Path(folder), *(GPU if options.device == "webgpu" else ())) as opened:
        page = OurPage(opened, Path(folder), url, build, variant, threads, options)
        loaded = memory(page.process, "VmHWM")
        page.transcribe(options.audio)
        before, times = processor_s(page.process), []
        for _ in range(options.rounds):
            times.append(page.transcribe(options.audio)[1])
        work = processor_s(page.process) - before
        whole, peak = page.page_mb(), max(loaded, memory(page.process, "VmHWM"))
        speed = seconds / min(times)
        return Row(build.name, variant, threads, size, page.load_s, speed, options.rounds * seconds / work, loaded, peak, whole)


def ready(page: Tab, condition: str) -> None:
    """Waits for a condition; ends with the page's error if one shows."""
    page.wait(f"({condition}) || !document.getElementById('error').hidden", 900)
    if not page.run("document.getElementById('error').hidden"):
        sys.exit(page.text("error"))


def processes(kind: str, profile: str) -> list[int]:
    """Returns the processes of a kind of the Chromium with this profile."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_text().replace("\0", " ")
        except OSError:  # it has ended
            continue
        if kind in line and profile in line:
            found.append(int(path.parent.name))
    return found


def renderer(profile: Path) -> int:
    """Returns the process that holds the page: the largest one of its kind."""
    return max(processes("--type=renderer", str(profile)), key=lambda pid: memory(pid, "VmRSS"))


def memory(pid: int, field: str) -> float:
    """Returns MB of a field of a process's status."""
    line = next(one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith(field))
    return int(line.split()[1]) * 1024 / 1e6


def processor_s(pid: int) -> float:
    """Returns the processor seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


if __name__ == "__main__":
    main()
