"""How many live streams `nemoport serve` holds in real time, how late their events are, and that each client gets its own text.

    python bench/serve.py build/streaming-en/kv-int8-dynamic --sessions 50,100,200
    python bench/serve.py build/streaming-en/kv-int8-dynamic --churn 60 --sessions 40
    python bench/serve.py dist/sherpa --sherpa sherpa-onnx-online-websocket-server --sessions 50,100,200

It starts the server itself, on loopback. Clients send the committed evaluation speech in real time, in a loop, each from another
place. A chunk's latency is from the packet that completes it to its event, both at the client. Text is compared with that of one
stream alone. With --churn, clients come and
go, and some are faulty: they stall, vanish, send garbage, send without pause, send too much, or read nothing. With --sherpa it
measures sherpa-onnx's own server (pip install sherpa-onnx-bin sherpa-onnx-core) on a package of that layout: it too sends a
message for each chunk; its text, which pauses divide otherwise, is not compared. Exit code 1: a session was lost, or had another
text than its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import websockets
from websockets.exceptions import ConnectionClosed

from nemoport import Recognizer

AUDIO = Path(__file__).resolve().parent.parent / "reference" / "audio" / "eval"
RATE_HZ = 16_000
PACKET_S = 0.16
SCRIPTS = 8  # different audio; more would not show more, and each is transcribed alone first
with socket.create_server(("127.0.0.1", 0)) as _free:  # two runs side by side do not meet
    PORT = _free.getsockname()[1]
MOST_SESSIONS, MOST_MINUTES = 2000, 120
START = json.dumps({"type": "start", "sample_rate": RATE_HZ, "progress": True})
END = '{"type": "end"}'


@dataclass
class Script:
    """What a client sends: 16-bit samples, and the text of one stream that was fed them alone."""

    samples: np.ndarray
    text: str
    chunk_ends: list[int]  # samples that complete each chunk


@dataclass
class Outcome:
    """latencies: seconds of each chunk; lag: seconds from the last packet to the end; problem: "" for a session that had its own
    text."""

    latencies: list[float] = field(default_factory=list)
    lag: float = 0.0
    problem: str = ""


def speech(seconds: float, count: int) -> list[np.ndarray]:
    """Speech in a loop, 16-bit samples, each from another clip on. Without seconds a clip each."""
    clips = [soundfile.read(path, dtype="int16")[0] for path in sorted(AUDIO.glob("*.flac"))]
    made = []
    for first in range(count):
        turned = clips[first * 7 % len(clips) :] + clips[: first * 7 % len(clips)]
        joined = np.concatenate([part for clip in turned for part in (clip, np.zeros(RATE_HZ // 2, np.int16))])
        made.append(np.resize(joined, round(seconds * RATE_HZ)) if seconds else turned[0])
    return made


def scripts(folder: Path, seconds: float, lookahead: int | None, count: int) -> list[Script]:
    """Speech, and the text of each by a stream of its own."""
    recognizer = Recognizer.open(folder, lookahead)
    return [Script(one, _text(recognizer, one), _chunk_ends(recognizer, len(one))) for one in speech(seconds, count)]


def _text(recognizer: Recognizer, samples: np.ndarray) -> str:
    (found,) = recognizer.transcribe([samples.astype(np.float32) / 2**15])
    return found.text


def _chunk_ends(recognizer: Recognizer, samples: int) -> list[int]:
    stream, ends, at = recognizer.stream(), [], 0
    while at < samples:
        step = min(max(1, int(stream.missing_samples)), samples - at)
        stream.push(np.zeros(step, np.float32))
        at += step
        ends += [at] * len(stream.chunks)
        stream.chunks.clear()
    return ends


class Nemoport:
    """`nemoport serve`: what a client sends, and what it is sent."""

    opening, ending = START, END

    def packet(self, samples: np.ndarray) -> bytes:
        """Returns a message of audio."""
        return samples.tobytes()

    def read(self, message: str | bytes) -> tuple[str, str]:
        """Returns what a message is: chunk, text, end, error or other; and its text."""
        event = json.loads(message)
        kind = {"update": "chunk", "utterance": "text", "end": "end", "error": "error"}.get(event["type"], "other")
        return kind, event.get("message", "") if kind == "error" else event.get("text", "")

    def command(self, options: argparse.Namespace, sessions: int) -> list[str]:
        """Returns the command that starts the server."""
        command = [sys.executable, "-m", "nemoport.cli", "serve", str(options.package), "--port", str(PORT)]
        command += ["--sessions", str(sessions), "--workers", str(options.workers), "--threads", str(options.threads)]
        command += ["--batch", str(options.batch), *(["--idle", "10"] if options.churn else [])]
        return command + (["--lookahead", str(options.lookahead)] if options.lookahead is not None else [])


class Sherpa(Nemoport):
    """sherpa-onnx's server."""

    opening, ending = "", "Done"

    def packet(self, samples: np.ndarray) -> bytes:
        return (samples.astype(np.float32) / 2**15).tobytes()

    def read(self, message: str | bytes) -> tuple[str, str]:
        return ("end" if message == "Done!" else "chunk"), ""

    def command(self, options: argparse.Namespace, sessions: int) -> list[str]:
        files = {part: next(options.package.glob(f"{part}.*onnx")) for part in ("encoder", "decoder", "joiner")}
        command = [options.sherpa, f"--port={PORT}", f"--tokens={options.package / 'tokens.txt'}"]
        command += [f"--{part}={path}" for part, path in files.items()] + [f"--max-batch-size={options.batch}"]
        return [*command, f"--num-work-threads={options.workers}", f"--num-threads={options.threads}"]


async def session(wire: Nemoport, script: Script, delay: float) -> Outcome:
    """A client that sends in real time."""
    await asyncio.sleep(delay)
    outcome, texts, complete, has_ended = Outcome(), [], [], False
    try:
        async with websockets.connect(f"ws://127.0.0.1:{PORT}/v1/stream", compression=None, ping_interval=None) as client:
            if wire.opening:
                await client.send(wire.opening)

            async def send() -> None:
                began, step = time.perf_counter(), round(PACKET_S * RATE_HZ)
                for at in range(0, len(script.samples), step):
                    await asyncio.sleep(began + (at + step) / RATE_HZ - time.perf_counter())
                    complete.extend([time.perf_counter()] * sum(at < end <= at + step for end in script.chunk_ends))
                    await client.send(wire.packet(script.samples[at : at + step]))
                complete.append(time.perf_counter())
                await client.send(wire.ending)

            sending = asyncio.create_task(send())
            async for message in client:
                kind, text = wire.read(message)
                if kind == "chunk" and len(outcome.latencies) < min(len(script.chunk_ends), len(complete)):
                    outcome.latencies.append(time.perf_counter() - complete[len(outcome.latencies)])
                elif kind == "text":
                    texts.append(text)
                elif kind == "end":
                    outcome.lag, has_ended = time.perf_counter() - complete[-1], True
                    break  # sherpa-onnx's server waits for the client to close
                elif kind == "error":
                    outcome.problem = f"error: {text}"
            await sending
    except (OSError, ConnectionClosed, websockets.InvalidHandshake, TimeoutError) as error:
        outcome.problem = outcome.problem or f"lost: {error}"
    if not outcome.problem and not has_ended:
        outcome.problem = "lost: no end"
    # Without spaces: a pause may divide a word, of random weights above all.
    is_own = "".join(texts).replace(" ", "") == script.text.replace(" ", "") and len(outcome.latencies) == len(script.chunk_ends)
    if not outcome.problem and not isinstance(wire, Sherpa) and not is_own:
        outcome.problem = f"another text: {' '.join(texts)!r}, not {script.text!r}"
    return outcome


class Server:
    """A server in a process of its own."""

    def __init__(self, command: list[str]):
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        for _ in range(600):
            if self._process.poll() is not None:
                break
            try:  # a connection that says nothing stops sherpa-onnx's server
                socket.create_server(("127.0.0.1", PORT), reuse_port=False).close()
            except OSError:
                return
            time.sleep(0.1)
        sys.exit(f"{command[0]} does not serve")

    def memory_mb(self) -> float:
        """Resident memory now."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def processor_s(self) -> float:
        """Processor time so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> int:
        """Ends it by SIGTERM and returns its exit code."""
        self._process.terminate()
        return self._process.wait(60)


async def measured(server: Server, wire: Nemoport, sessions: int, made: list[Script], chunk_s: float) -> dict:
    """One run: figures of so many sessions at once, which begin within a chunk's time."""
    before_mb, before_s, began = server.memory_mb(), server.processor_s(), time.perf_counter()
    client_s = time.process_time()
    delays = [chunk_s * i / sessions for i in range(sessions)]
    tasks = [asyncio.create_task(session(wire, made[i % len(made)], delays[i])) for i in range(sessions)]
    await asyncio.sleep(len(made[0].samples) / RATE_HZ * 0.9)
    memory_mb = server.memory_mb()
    outcomes = await asyncio.gather(*tasks)
    seconds = time.perf_counter() - began
    every = np.array([one for outcome in outcomes for one in outcome.latencies] or [np.inf])
    problems = [outcome.problem for outcome in outcomes if outcome.problem]
    for problem in problems[:3]:
        print(problem, file=sys.stderr)
    p50, p99 = np.percentile(every, [50, 99])
    server_s, client_s = server.processor_s() - before_s, time.process_time() - client_s
    return {
        "sessions": sessions,
        "p50_ms": round(1000 * p50),
        "p99_ms": round(1000 * p99),
        "largest_ms": round(1000 * every.max()),
        "chunks": len(every),
        "problems": len(problems),
        "holds": bool(p99 < chunk_s and not problems),
        "server_cores": round(server_s / seconds, 2),
        "client_cores": round(client_s / seconds, 2),
        "server_ms_a_chunk": round(1000 * server_s / len(every), 2),
        "mb_a_session": round((memory_mb - before_mb) / sessions, 2),
        "load": os.getloadavg()[0],
    }


async def searched(server: Server, wire: Nemoport, first: int, most: int, made: list[Script], chunk_s: float) -> None:
    """Doubles the sessions until they do not hold real time, and then halves the step."""
    good, bad, at = 0, most + 1, first
    while bad - good > max(1, good // 8) and at <= most:
        figures = await measured(server, wire, at, made, chunk_s)
        print(json.dumps(figures), flush=True)
        good, bad = (at, bad) if figures["holds"] else (good, at)
        at = min(2 * at, most) if bad > most else (good + bad) // 2
        if at == good:
            break
    print(json.dumps({"held": good}))


async def faulty(made: list[Script], kind: str, rng: random.Random) -> str:
    """A client that does what it must not. Returns how the server ended it."""
    samples = rng.choice(made).samples
    async with websockets.connect(
        f"ws://127.0.0.1:{PORT}/v1/stream", compression=None, ping_interval=None, max_queue=1, open_timeout=60
    ) as client:
        with suppress(ConnectionClosed):
            match kind:
                case "stalls":
                    await client.send(samples[: rng.randrange(1, len(samples))].tobytes())
                    await asyncio.sleep(12)
                case "vanishes":
                    await client.send(samples[: rng.randrange(1, len(samples))].tobytes())
                    client.transport.abort()
                case "garbage":
                    await client.send(rng.choice(GARBAGE))
                case "too fast":
                    for _ in range(5):
                        await client.send(samples.tobytes())
                    await client.send(END)
                case "too much":
                    await client.send(bytes(2 << 20))
                case "reads nothing":
                    client.transport.pause_reading()
                    for _ in range(20):
                        await client.send(samples[:1600].tobytes())
                        await asyncio.sleep(0.1)
                    client.transport.abort()
            async with asyncio.timeout(60):
                async for _ in client:
                    pass
    return f"{kind}: {client.close_code}"


GARBAGE = ("{", "[]", '{"type": "start", "rate": 1}', '{"type": 1}', b"\0", "null", '{"type": "end", "x": 1}')
FAULTS = ("stalls", "vanishes", "garbage", "too fast", "too much", "reads nothing")


async def churned(server: Server, wire: Nemoport, made: list[Script], clients: int, minutes: float, seed: int) -> int:
    """Clients that come and go, a third of them faulty. Returns how many good sessions were lost or had another text."""
    end, ends, wrong = time.monotonic() + 60 * minutes, Counter(), 0
    latencies: list[float] = []

    async def client(rng: random.Random) -> None:
        nonlocal wrong
        while time.monotonic() < end:
            if rng.random() < 1 / 3:
                try:
                    ends[await faulty(made, rng.choice(FAULTS), rng)] += 1
                except (OSError, websockets.InvalidHandshake, TimeoutError) as error:
                    ends[f"faulty: {type(error).__name__}"] += 1
                continue
            outcome = await session(wire, rng.choice(made), rng.random())
            latencies.extend(outcome.latencies)
            ends["good" if not outcome.problem else "WRONG"] += 1
            if outcome.problem:
                wrong += 1
                print(outcome.problem, file=sys.stderr, flush=True)

    before_mb = server.memory_mb()
    await asyncio.gather(*(client(random.Random(f"{seed} {i}")) for i in range(clients)))
    p50, p99 = 1000 * np.percentile(latencies or [np.inf], [50, 99])
    figures = {"minutes": minutes, "clients": clients, "wrong": wrong, "p50_ms": round(p50), "p99_ms": round(p99)}
    memory = {"mb_before": round(before_mb), "mb_after": round(server.memory_mb()), "load": os.getloadavg()[0]}
    print(json.dumps(figures | memory | {"ends": dict(sorted(ends.items()))}))
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="a package, or the folder of a variant")
    parser.add_argument(
        "--sessions", default="16", help="counts, separated by commas; with --search the first; with --churn clients"
    )
    parser.add_argument("--search", type=int, metavar="MOST", help="find the most sessions that hold real time, up to MOST")
    parser.add_argument("--seconds", type=float, default=20.0, help="audio of each session; default: %(default)g")
    parser.add_argument("--churn", type=float, metavar="MINUTES", help="clients that come and go, a third of them faulty")
    parser.add_argument("--sherpa", metavar="PROGRAM", help="sherpa-onnx's server, for a package of the layout sherpa-onnx")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lookahead", type=int)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    counts = [int(count) for count in options.sessions.split(",")]
    if max(*counts, options.search or 0, 1) > MOST_SESSIONS or (options.churn or 0) > MOST_MINUTES:
        parser.error(f"at most {MOST_SESSIONS} sessions and {MOST_MINUTES} minutes")
    wire = Sherpa() if options.sherpa else Nemoport()
    if options.sherpa:  # windows of 65 mel frames, 56 of them new
        made = [Script(one, "", list(range(10_480, len(one), 8960))) for one in speech(options.seconds, SCRIPTS)]
    else:
        seconds, count = (0, 40) if options.churn else (options.seconds, SCRIPTS)
        made = scripts(options.package, seconds, options.lookahead, count)
    ends = made[0].chunk_ends if not options.churn else [0, 0]
    chunk_s = (ends[-1] - ends[-2]) / RATE_HZ
    server = Server(wire.command(options, max(*counts, options.search or 0, 1) + 10))
    problems = 0
    try:
        if options.churn:
            problems = asyncio.run(churned(server, wire, made, counts[0], options.churn, options.seed))
        elif options.search:
            asyncio.run(searched(server, wire, counts[0], options.search, made, chunk_s))
        else:
            for count in counts:
                figures = asyncio.run(measured(server, wire, count, made, chunk_s))
                print(json.dumps(figures), flush=True)
                problems += figures["problems"]
    finally:
        ended = server.end()
    print(json.dumps({"chunk_ms": round(1000 * chunk_s), "exit_code": ended}))
    return int(problems > 0 or (ended != 0 and not options.sherpa))


if __name__ == "__main__":
    sys.exit(main())
