"""Gate `contract`: what a runtime relies on without a check: names, types, shapes, metadata, file names, hashes.

Each check yields a text: the problem that it found, or "".
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from nemoport.caches import NemoCaches
from nemoport.caches_kv import KvCaches
from nemoport.export.config import cache_shapes
from nemoport.export.shared import LANGUAGES
from nemoport.interface import difference, differences
from nemoport.runtimes import load_runtime
from nemoport.tokens import read_tokens
from nemoport.validate.context import Context
from nemoport.validate.gate_result import GateResult


def run(context: Context) -> list[GateResult]:
    problems, checks = [], 0
    for found in (
        _files(context),
        _specs(context),
        _languages(context),
        _interfaces(context),
    ):
        for problem in found:
            checks += 1
            problems += [problem] if problem else []
    return [
        context.judge(
            "contract", "", len(problems), limit="max_problems", unit="problems", n=checks, evidence="; ".join(problems)
        )
    ]


def _interfaces(context: Context) -> Iterator[str]:
    artifact, runtime = context.artifact, load_runtime(context.limits.target)
    expected, found = runtime.expected(artifact, context.spec), runtime.found(artifact)
    yield from (f"unknown graph {name}" for name in sorted(set(found) - set(expected)))
    for name, interface in expected.items():
        if name in found:
            yield from differences(name, interface, found[name], runtime.optional)
        else:
            yield f"{name} is absent"
    yield from runtime.problems(artifact, context.spec)


def _files(context: Context) -> Iterator[str]:
    artifact = context.artifact
    artifact.verify_files()  # raises, naming every file that differs from the manifest
    for _ in artifact.manifest.files:
        yield ""
    yield difference("manifest.json's variant", context.variant, artifact.manifest.variant)
    yield difference("manifest.json's checkpoint", context.checkpoint.sha256, artifact.manifest.checkpoint_sha256)
    pieces = read_tokens(artifact.shared / "tokens.txt")
    yield difference("tokens in tokens.txt", context.spec.decoding.vocab_size, len(pieces))
    yield difference("events that spelling.json leaves out of the text", context.checkpoint.spelling.events, pieces.rule.events)
    artifact.filterbank()


def _languages(context: Context) -> Iterator[str]:
    """Compares the languages that the files list for prompts with those that the checkpoint was trained on."""
    if (prompt := context.spec.prompt) is None:
        return
    path = context.artifact.shared / LANGUAGES
    yield difference(f"shared/{LANGUAGES}", prompt.languages, json.loads(path.read_text()) if path.is_file() else "no file")
    listed = context.artifact.config().get("prompt", {}).get("languages")
    yield difference("config.json's prompt.languages", prompt.languages, listed)


def _specs(context: Context) -> Iterator[str]:
    expected, found = context.spec.to_dict(), context.artifact.spec.to_dict()
    yield difference("config.json's kind", expected["kind"], found["kind"])
    for part in [name for name in expected if name != "kind"]:
        for name, value in expected[part].items():
            yield difference(f"config.json's {part}.{name}", value, found.get(part, {}).get(name))
    if context.spec.streaming is None:
        return
    encoder, streaming = context.artifact.config()["encoder"], context.spec.streaming
    for key, caches in (("cache_shapes", NemoCaches), ("kv_cache_shapes", KvCaches)):
        yield difference(f"config.json's {key}", cache_shapes(streaming, caches), encoder.get(key))
