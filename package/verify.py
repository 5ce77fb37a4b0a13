"""Verification of a package: its files are those of its manifest, and every variant in it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nemoport.artifact import Artifact
from nemoport.config import read_config
from nemoport.errors import ArtifactError, UsageError, first_line
from nemoport.files import sha256_file
from nemoport.finite_weights import check_finite_weights
from nemoport.heads import head_of
from nemoport.package.layout import Layout
from nemoport.package.layouts import load_layout
from nemoport.package.manifest import NAME, PackageManifest, check_sums, is_plain, list_files
from nemoport.progress import Progress, Step, silent, step
from nemoport.runtimes import load_runtime, open_session, runtime_of
from nemoport.runtimes.onnxruntime.merged import MergedSession
from nemoport.runtimes.onnxruntime.session import OnnxSession
from nemoport.runtimes.onnxruntime.split import SplitSession
from nemoport.session import Session
from nemoport.spec import Lookahead, ModelSpec
from nemoport.text import clipped

OFFLINE_ENC_FRAMES = 6  # of silence that an offline model encodes: half a second at 80 ms each


def verify(folder: Path, variants: Sequence[str] | None = None, progress: Progress = silent) -> list[str]:
    """Checks files, manifests and graphs and returns a line for each check.

    variants: those to check, by default all; the folders of the others may be absent or hold anything, as after a download
    of one precision. Raises ArtifactError naming everything that is wrong with the files, or the first graph
    that does not run or has weights that are not finite; UsageError for a variant that the manifest does not list.
    """
    folder = Path(folder)
    manifest = PackageManifest.read(folder)
    wanted = _wanted(folder, manifest, variants)
    files = _check_files(folder, manifest, wanted, progress)
    ran = []
    for variant in wanted:
        with step(f"{variant}: running", progress):
            ran.append(f"{variant}: {_check_variant(folder, manifest, variant)}")
    with step("verify: weights", progress):
        weights = _check_weights(folder, manifest, wanted)
    return [f"{NAME}: schema {manifest.schema}, digest {manifest.digest[:12]}", files + weights, *ran]


def _check_variant(folder: Path, manifest: PackageManifest, variant: str) -> str:
    layout = load_layout(manifest.layout)
    if not layout.artifact_folder:
        return f"loads in {layout.runtime}, {_run_silence(*open_graphs(folder, layout, variant))}"
    artifact = Artifact.open(layout.artifact_folder(folder, variant))
    _check_recorded(artifact, manifest, variant, layout.runtime)
    if code := load_runtime(layout.runtime).holds_code:
        return f"not run, because {code} can hold code"
    line = _run_silence(artifact.folder, open_session(artifact, threads=1), artifact.lookaheads)
    return f"loads in {layout.runtime}, {line}"


def _check_recorded(artifact: Artifact, manifest: PackageManifest, variant: str, runtime: str) -> None:
    recorded = (manifest.variants[variant].digest, manifest.checkpoint_sha256, runtime)
    found = (artifact.manifest.digest, artifact.manifest.checkpoint_sha256, runtime_of(artifact).name)
    if found != recorded:
        raise ArtifactError(
            f"{artifact.folder} is not the variant that the package was made with.",
            expected=f"manifest {recorded[0][:12]} of checkpoint {recorded[1][:12]}, for {runtime}",
            found=f"manifest {found[0][:12]} of {found[1][:12]}, for {found[2]}",
            todo="download or make the package again",
        )


def open_graphs(folder: Path, layout: Layout, variant: str) -> tuple[Path, Session, tuple[Lookahead, ...]]:
    """Returns the variant's place for messages, a session of its graphs, and the lookaheads that it serves."""
    spec = ModelSpec.from_dict(read_config(folder, "download or make the package again")["spec"])
    encoder, *others = layout.graphs(folder, variant, spec.head)
    if layout.open_variant:
        return encoder, layout.open_variant(folder, variant, spec), spec.lookaheads
    if not others:
        return encoder, MergedSession(spec, encoder, threads=1), spec.lookaheads
    decoder, *joiner = others
    if joiner:
        return encoder, SplitSession(spec, encoder, decoder, joiner[0], threads=1), spec.lookaheads
    return encoder, OnnxSession(spec, encoder, decoder, threads=1), spec.lookaheads


def _wanted(folder: Path, manifest: PackageManifest, variants: Sequence[str] | None) -> list[str]:
    unknown = sorted(set(variants or ()) - set(manifest.variants))
    if unknown:
        raise UsageError(
            f"{folder} has no variant {', '.join(unknown)}.",
            expected=f"one of {', '.join(sorted(manifest.variants))}",
            found=", ".join(unknown),
            todo="name a variant of this package",
        )
    return sorted(set(variants or manifest.variants))


def _check_weights(folder: Path, manifest: PackageManifest, wanted: Sequence[str]) -> str:
    """Checks the weights of every ONNX graph, also of a front end and of shards, and returns what to add to the files' line."""
    skipped = _skipped(folder, manifest, wanted)
    graphs = [path for path in list_files(folder) if path.endswith(".onnx") and path.partition("/")[0] not in skipped]
    for path in graphs:
        check_finite_weights(folder / path)
    return f"; finite weights in {len(graphs)} ONNX graphs" if graphs else ""


def _skipped(folder: Path, manifest: PackageManifest, wanted: Sequence[str]) -> set[str]:
    """Returns the names of the folders of the variants that are not checked."""
    place = load_layout(manifest.layout).variant_folder
    return {place(folder, variant).name for variant in set(manifest.variants) - set(wanted)}


def _check_files(folder: Path, manifest: PackageManifest, wanted: Sequence[str], progress: Progress) -> str:
    skipped = _skipped(folder, manifest, wanted)
    listed = {entry.path: entry for entry in manifest.files if entry.path.partition("/")[0] not in skipped}
    present = [path for path in list_files(folder) if path.partition("/")[0] not in skipped]
    problems = [f"{path}: missing" for path in sorted(set(listed) - set(present))]
    problems += [f"{path}: not in the manifest" for path in sorted(set(present) - set(listed))]
    total = sum(entry.bytes for entry in listed.values())
    done = 0
    for path in sorted(set(present) & set(listed)):
        progress(Step("verify: hashing", done / 1e6, total / 1e6, "MB"))
        done += listed[path].bytes
        entry, size = listed[path], (folder / path).lstat().st_size
        if not is_plain(folder / path):
            problems.append(f"{path}: a link, or no file")
        elif size != entry.bytes:
            problems.append(f"{path}: {size} bytes, expected {entry.bytes}")
        elif sha256_file(folder / path) != entry.sha256:
            problems.append(f"{path}: content differs from its sha256")
    progress(Step("verify: hashing", total / 1e6, total / 1e6, "MB"))
    problems += check_sums(folder, manifest)
    if problems:
        raise ArtifactError(
            f"The package {folder} is damaged.",
            expected=f"the {len(listed)} files of its manifest, unchanged, and no others",
            found=clipped("; ".join(problems), 4000),
            todo="download it into an empty folder (`hf download --local-dir`), or make it again with `nemoport package`",
        )
    return f"{len(listed)} files, {total} bytes: sizes and sha256 as recorded"


def _run_silence(place: Path, session: Session, lookaheads: Sequence[Lookahead]) -> str:
    """Runs digital silence through encoder and decoder: a first chunk, or half a second in an offline model.

    Returns a line for `verify`. Raises ArtifactError for graphs that fail, and for wrong shapes or values that are not finite.
    """
    spec = session.spec
    head_of(spec)  # refuses a kind that cannot be decoded
    if spec.streaming:
        lookahead = max(one for one in lookaheads if isinstance(one, int))
        count, size = lookahead + 1, spec.streaming.window_mel_frames(lookahead, first=True)
    else:
        count = OFFLINE_ENC_FRAMES
        size = count * spec.encoder.subsampling_factor
    level = 0.0 if spec.frontend.normalize == "per_feature" else np.log(spec.frontend.log_guard)
    silence = np.full((1, spec.frontend.n_mels, size), level, np.float32)
    zeros = np.zeros(spec.decoding.state_shape(1), np.float32)
    try:
        state = session.initial_state(1, [0] if spec.prompt else [])
        frames, lengths, _ = session.encode(silence, np.array([size]), state)
        logits, states = session.step(frames, np.array([spec.decoding.blank_id], np.int32), (zeros, zeros))
    except Exception as error:  # onnxruntime's own exception classes share no public base
        raise _broken(place, first_line(error)) from error
    wanted = (1, count, spec.decoding.n_scores)  # the session has checked the width of frames
    if frames.shape[:2] != wanted[:2] or logits.shape != wanted or int(lengths[0]) != count:
        raise _broken(
            place, f"{int(lengths[0])} of {frames.shape[1]} frames valid, scores of the shape {logits.shape}, not {wanted}"
        )
    if not all(np.isfinite(values).all() for values in (frames, logits, *states)):
        raise _broken(place, "values that are not finite")
    return f"{count} finite frames of silence"


def _broken(place: Path, found: str) -> ArtifactError:
    return ArtifactError(
        f"{place} does not run.",
        expected="finite frames and scores for silence",
        found=found,
        todo="download it again, or build it again; if it stays, report it",
    )
