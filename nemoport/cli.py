"""The command line: parses and prints, nothing else. Exit code 0: done, 1: a gate failed, 2: unusable input."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from nemoport.errors import NemoportError, UsageError


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except NemoportError as error:
        print(f"nemoport: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `nemoport transcribe ... | head`
        return 141


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("nemoport", description="NeMo speech recognisers as proven ONNX packages")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(run, name: str, *options, help: str):
        sub = commands.add_parser(name, help=help, description=help)
        for flags, settings in options:
            sub.add_argument(*flags, **settings)
        sub.set_defaults(run=run)

    checkpoint = (("--checkpoint",), dict(required=True, help=".nemo file, or Hub id org/name[@revision]"))
    build = (("--build",), dict(required=True, type=Path, help="build folder of the checkpoint"))
    corpus = (("--corpus",), dict(required=True, type=Path, help="NeMo manifest of evaluation audio with transcripts"))
    calibration = (("--calibration",), dict(type=Path, help="NeMo manifest of calibration audio"))
    variants = (("--variant",), dict(action="append", dest="variants", help="repeat for several; default: all built"))
    dist = (("--dist",), dict(required=True, type=Path, help="package folder to write"))
    card = [
        (("--license",), dict(help="SPDX id of the checkpoint's licence; known for the published base models")),
        (("--license-url",), dict(help="where its text is, for an id that is not known here")),
        (("--license-holder",), dict(help="whom to name, where the licence asks for it")),
        (("--base-model",), dict(help="Hub id of the checkpoint")),
        (("--language",), dict(help="BCP 47 code of what it recognises, such as en")),
    ]
    lookahead = (("--lookahead",), dict(type=int, help="right context in encoder frames of 80 ms; see config.json"))
    provider = (("--provider",), dict(default="cpu", help="cpu, cuda, tensorrt, coreml, dml; in OpenVINO cpu, gpu, npu"))
    threads = (("--threads",), dict(type=int, default=0, help="0: the runtime's choice"))
    streams = (("--streams",), dict(type=int, default=1, help="files transcribed at once, in one batch"))
    flush = (("--flush",), dict(default="full", help="full: to the last frame; nemo: as NeMo's streaming buffer"))
    passes = (("--pass-seconds",), dict(type=float, default=390.0, help="offline models hear longer files in windows of so many"))
    language = (("--language",), dict(help="for a model with a language prompt: a name of its dictionary, such as de-DE or auto"))
    beam = (("--beam",), dict(type=int, default=1, metavar="N", help="paths of a beam search; 1: greedy"))
    hotword = (("--hotword",), dict(action="append", default=[], metavar="PHRASE", help="to be expected; repeat for several"))
    boost = (("--hotword-boost",), dict(type=float, metavar="X", help="log score of each of its tokens; default: 1.5"))
    as_json = (("--json",), dict(action="store_true", help="one JSON object a line, with tokens and times"))

    profile = (("--profile",), dict(help="one chunk, and the attention's lookahead in it, such as 1120ms/0"))
    command(_oracle, "oracle", checkpoint, build, corpus, profile, help="record NeMo's own streaming and offline runs")
    contract = (("--contract",), dict(default="nemo", help="nemo: NeMo's caches; kv: projected ones, the fast path"))
    targets = [
        (("--target",), dict(default="onnx", help="onnx, or another runtime: coreai, coreml, ...")),
        (("--precision",), dict(default="fp32", help="of another target than onnx: fp32, fp16, int8, ...")),
    ]
    command(
        _export,
        "export",
        *(checkpoint, build, contract, profile, *targets, calibration),
        help="export the checkpoint to fp32 ONNX graphs, or to another runtime's",
    )
    command(
        _quantize,
        "quantize",
        (("variant",), dict(help="fp16, int8-dynamic, int8-smoothquant, int8-weight, int4-mixed, ...; kv-... for that contract")),
        build,
        calibration,
        help="convert the fp32 graphs to another precision",
    )
    command(_sensitivity, "sensitivity", build, calibration, help="what each part of the encoder costs in 4 bits")
    heard = (("--corpus",), dict(corpus[1], required=False))
    dataset = [
        (("--dataset",), dict(help="in place of --corpus: a data set of the Hub such as google/fleurs, or a folder like one")),
        (("--languages",), dict(default="", help="its configurations, such as en_us,de_de")),
        (("--split",), dict(default="test", help="default: %(default)s")),
        (("--limit",), dict(type=int, help="so many recordings of each language")),
        (("--shard",), dict(metavar="I/N", help="every N-th of them, from the I-th on")),
        (("--dataset-revision",), dict(help="of the data set")),
    ]
    jobs = (("--jobs",), dict(type=int, default=1, help="variants judged at once, each in a process with its share of the cores"))
    judged = (checkpoint, build, heard, calibration, variants, profile, jobs, *dataset)
    command(_validate, "validate", *judged, help="hold variants to the gates")
    named = "native: nemoport's own; sherpa-onnx; onnx-asr, for offline models; openvino, litert, coreai, coreml: of that target"
    layout = (("--layout",), dict(default="native", help=named))
    shards = (("--shard-bytes",), dict(metavar="SIZE", help="layout onnx-asr: fp32 again in files of at most SIZE, such as 1.5G"))
    command(_package, "package", build, dist, variants, layout, shards, *card, help="lay out what passed for the Hub")
    command(
        _shard,
        "shard",
        (("graph",), dict(type=Path, help="an .onnx file with weights beside it")),
        (("folder",), dict(type=Path, help="to be written")),
        (("--shard-bytes",), dict(default="1.5G", metavar="SIZE", help="most of a file; default: %(default)s")),
        help="repack a graph's weights into files that a browser can take",
    )
    command(_verify, "verify", (("folder",), dict(type=Path)), variants, help="check a package's files against its manifest")
    command(
        _publish,
        "publish",
        (("folder",), dict(type=Path)),
        (("--repo",), dict(required=True, help="Hub repository, org/name")),
        (("--dry-run",), dict(action="store_true", help="print the plan only; the default without a token")),
        (("--private",), dict(action="store_true")),
        (("--revision",), dict(help="branch to upload to; default: main")),
        help="upload a package to the Hub",
    )
    command(
        _transcribe,
        "transcribe",
        (("artifact",), dict(type=Path, help="a variant's folder, such as dist/streaming-en/int8-static")),
        (("audio",), dict(nargs="+", help="audio files; - reads raw 16-bit mono PCM at the model's rate, live")),
        lookahead,
        flush,
        streams,
        provider,
        threads,
        passes,
        language,
        beam,
        hotword,
        boost,
        as_json,
        help="transcribe audio files or a live stream",
    )
    return parser


def _oracle(options) -> None:
    from nemoport.calibration.corpus import read_corpus
    from nemoport.export.checkpoint import read_checkpoint
    from nemoport.export.profile import profiled
    from nemoport.validate.oracle import record_oracle

    checkpoint = profiled(read_checkpoint(options.checkpoint), options.profile)
    corpus = read_corpus(options.corpus, checkpoint.spec.frontend.sample_rate_hz)
    record_oracle(checkpoint, corpus, options.build, progress=_progress)


def _export(options) -> None:
    from nemoport.export.build import export_checkpoint
    from nemoport.export.checkpoint import read_checkpoint
    from nemoport.export.profile import profiled
    from nemoport.export.targets import export_target

    checkpoint = profiled(read_checkpoint(options.checkpoint), options.profile)
    if options.target == "onnx":
        artifact = export_checkpoint(checkpoint, options.build, options.contract)
    else:
        artifact = export_target(
            checkpoint, options.build, options.target, options.precision, options.calibration, progress=_progress
        )
    print(artifact.folder)


def _quantize(options) -> None:
    from nemoport.quantize import build_variant

    print(build_variant(options.build, options.variant, options.calibration, progress=_progress).folder)


def _sensitivity(options) -> None:
    from nemoport.quantize import measure_sensitivity
    from nemoport.quantize.sensitivity import heat_map

    print(heat_map(measure_sensitivity(options.build, options.calibration, progress=_progress)))


def _validate(options) -> int:
    from nemoport.export.checkpoint import read_checkpoint
    from nemoport.export.profile import profiled
    from nemoport.validate.run import validate

    checkpoint = profiled(read_checkpoint(options.checkpoint), options.profile)
    corpus = _dataset(options, checkpoint.spec) if options.dataset else options.corpus
    if corpus is None or (options.dataset and options.corpus):
        raise UsageError(
            "One evaluation set is needed.",
            expected="either --corpus or --dataset",
            found="both" if corpus else "neither",
            todo="give one of them",
        )
    passed = validate(
        checkpoint,
        options.build,
        corpus,
        options.variants,
        options.calibration,
        jobs=options.jobs,
        progress=_progress,
    )
    return 0 if passed else 1


def _dataset(options, spec) -> Path:
    from nemoport.calibration.dataset import Part, dataset_manifest

    return dataset_manifest(
        options.dataset,
        [language for language in options.languages.split(",") if language],
        options.build / "datasets",
        spec,
        options.split,
        Part.parse(options.limit, options.shard),
        options.dataset_revision,
        _progress,
    )


def _package(options) -> None:
    from nemoport.export.package import package
    from nemoport.export.shards import parse_bytes

    folder = package(
        options.build,
        options.dist,
        options.variants,
        licence=options.license,
        licence_url=options.license_url,
        licence_holder=options.license_holder,
        base_model=options.base_model,
        language=options.language,
        layout=options.layout,
        shard_bytes=parse_bytes(options.shard_bytes) if options.shard_bytes else None,
    )
    print(folder)


def _shard(options) -> None:
    from nemoport.export.shards import parse_bytes, shard

    for path in shard(options.graph, options.folder, parse_bytes(options.shard_bytes)):
        print(f"{path}: {path.stat().st_size} bytes")


def _verify(options) -> None:
    from nemoport.verify import verify

    for line in verify(options.folder, options.variants):
        print(line)


def _publish(options) -> None:
    from nemoport.export.hub import publish

    for line in publish(
        options.folder,
        options.repo,
        dry_run=options.dry_run,
        private=options.private,
        revision=options.revision,
    ):
        print(line)


def _transcribe(options) -> None:
    from nemoport.audio import read_audio
    from nemoport.recognizer import Recognizer

    recognizer = Recognizer.open(
        options.artifact,
        options.lookahead,
        flush=options.flush,
        provider=options.provider,
        threads=options.threads,
        pass_s=options.pass_seconds,
        language=options.language,
        beam=options.beam,
        hotwords=options.hotword,
        hotword_boost=options.hotword_boost,
    )
    if options.audio == ["-"]:
        return _transcribe_live(recognizer)
    files = ((name, read_audio(Path(name), recognizer.sample_rate_hz)) for name in options.audio)
    for hypothesis in recognizer.transcribe(files, streams=options.streams):
        if options.json:
            print(json.dumps(vars(hypothesis), ensure_ascii=False), flush=True)
        else:
            print(f"{hypothesis.id}\t{hypothesis.text}", flush=True)


def _transcribe_live(recognizer) -> None:
    import numpy as np

    stream, shown = recognizer.stream(), ""

    def show(n_tokens: int) -> None:
        nonlocal shown
        text = recognizer.text(stream.tokens[:n_tokens])
        sys.stdout.write(text[len(shown) :])
        sys.stdout.flush()
        shown = text

    while packet := sys.stdin.buffer.read1(65536):
        if len(packet) % 2:
            packet += sys.stdin.buffer.read(1)
        stream.feed(np.frombuffer(packet[: len(packet) // 2 * 2], "<i2").astype(np.float32) / 32768)
        show(stream.certain)
    stream.finish()
    show(len(stream.tokens))
    print()


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
