"""`nemoport serve`: live streams and recordings for clients."""

from __future__ import annotations

import argparse
from pathlib import Path

from nemoport.cli.command import Command, grouped, option
from nemoport.errors import UsageError

LIMITS = (  # option, field of nemoport.server.limits.Limits, type, default, help
    ("--sessions", "sessions", int, 64, "live sessions at once"),
    ("--batch", "batch", int, 32, "streams of one run of the encoder, at most"),
    ("--ahead", "ahead_s", float, 30.0, "seconds that a session may be ahead of real time; then it is read at its pace"),
    ("--idle", "idle_s", float, 30.0, "seconds without a message that end a session"),
    ("--longest", "session_s", float, 14400.0, "seconds of audio of a session or a recording"),
    ("--upload", "upload_bytes", int, 200 << 20, "bytes of a recording"),
    ("--drain", "drain_s", float, 30.0, "seconds in which sessions finish after SIGTERM"),
)


def run(options: argparse.Namespace) -> None:
    from nemoport.server.access import read_token
    from nemoport.server.limits import Limits
    from nemoport.server.models import Opening
    from nemoport.server.run import check_serving, serve

    if options.engine != "ray" and (options.address or options.replicas is not None):
        found, todo = "--address or --replicas", "add --engine ray"
        raise UsageError("A server of its own has neither cluster nor replicas.", expected="neither", found=found, todo=todo)
    token = read_token(options.token_file) if options.token_file else None
    check_serving(options.host, token, is_open=options.open)
    for flag, field, _, _, _ in LIMITS:
        if not getattr(options, field) > 0:
            found, todo = f"{getattr(options, field):g}", "leave it out"
            raise UsageError(f"{flag} cannot be used.", expected="above 0", found=found, todo=todo)
    for flag, count in (("--workers", options.workers), ("--replicas", options.replicas)):
        if count is not None and count < 1:
            raise UsageError(f"{flag} cannot be used.", expected="1 or more", found=str(count), todo="leave it out")
    limits = Limits(**{field: getattr(options, field) for _, field, _, _, _ in LIMITS})
    settings = (options.workers, options.threads, options.provider, options.language, options.lookahead)
    openings = [Opening(package, *settings) for package in options.packages]
    place, access = (options.host, options.port), (token, options.allow_origin, lambda at: print(at, flush=True))
    if options.engine == "ray":
        from nemoport.server.on_ray import Cluster, serve_on_ray

        cluster = Cluster(options.address, options.replicas or 1)
        return serve_on_ray(openings, *place, limits, cluster, *access, is_open=options.open)
    serve(openings, *place, limits, *access)


ACCESS = (
    option("--host", default="127.0.0.1", help="address to listen on; default: %(default)s, for this machine alone"),
    option("--port", type=int, default=8000, help="0 for any that is free; default: %(default)s"),
    option("--token-file", type=Path, metavar="FILE", help="its first line is the bearer token that clients must send"),
    option("--open", action="store_true", help="listen for other machines without a token, behind a proxy that asks for one"),
    option("--allow-origin", action="append", default=[], metavar="URL", help="of pages that may connect; repeat for several"),
)
MODEL = (
    option("--language", help="of sessions that name none, for models with a language prompt; default: auto where there is one"),
    option("--lookahead", type=int, help="of sessions that name none, in encoder frames of 80 ms"),
    option("--provider", default="cpu", help="cpu, cuda, tensorrt, coreml, dml; in OpenVINO cpu, gpu, npu"),
    option("--threads", type=int, default=0, help="of the runtime in each run; 0: the runtime's choice"),
    option("--workers", type=int, default=1, help="batches of a model that run at once; more for small models; default: 1"),
)
RAY = (
    option("--engine", choices=("own", "ray"), default="own", help="ray: replicas in Ray Serve; default: own, a process"),
    option("--address", help="of a running Ray cluster, such as 10.0.0.1:6379; default: RAY_ADDRESS, else Ray on this machine"),
    option("--replicas", type=int, metavar="N", help="of the server in Ray, each with --workers times --threads processors"),
)
COMMAND = Command(
    "serve",
    "serve live streams and recordings to clients",
    (
        option("packages", nargs="+", help="a package, the folder of one of its variants, or a Hub id"),
        *grouped("access", *ACCESS),
        *grouped("model", *MODEL),
        *grouped("Ray", *RAY),
        *grouped(
            "limits",
            *(option(o, dest=f, type=t, default=d, metavar="N", help=f"{h}; default: {d:g}") for o, f, t, d, h in LIMITS),
        ),
    ),
    run,
    examples=(
        "nemoport serve dist/my",
        "nemoport serve dist/english dist/multilingual/kv-int8-dynamic --language auto --sessions 16",
        "nemoport serve dist/my --engine ray --address 10.0.0.1:6379 --replicas 4 --threads 2",
        "nemoport serve dist/my --host 0.0.0.0 --token-file token.txt --allow-origin https://asr.example.org",
    ),
    extras="serve",
)
