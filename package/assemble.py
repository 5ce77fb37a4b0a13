"""Assembly of a Hub folder from the variants of a build: only those that passed every required gate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from nemoport.artifact import Artifact
from nemoport.config import CheckpointSection, read_config
from nemoport.errors import ArtifactError, OutputError
from nemoport.files import new_folder, scratch_folder, sweep_leftovers, write_bytes
from nemoport.package import plots
from nemoport.package.card import card
from nemoport.package.card_data import Figures
from nemoport.package.eval_results import Benchmark, eval_results
from nemoport.package.layout import CardFacts, Layout
from nemoport.package.layouts import load_layout
from nemoport.package.links import link_equal
from nemoport.package.manifest import NAME, PackagedVariant, PackageManifest, hash_files
from nemoport.package.sbom import write_sbom
from nemoport.package.terms import resolve_terms
from nemoport.progress import Progress, silent, step
from nemoport.resources import Needs, check_free, shares_blocks
from nemoport.validate.gate_result import artifact_sha256
from nemoport.validate.limits import read_limits
from nemoport.validate.result_store import required_passes

RequiredPasses = Callable[[Path, str], list[str]]


def package(
    build: Path,
    dist: Path,
    variants: Sequence[str] | None = None,
    *,
    licence: str | None = None,
    base_model: str | None = None,
    licence_url: str | None = None,
    licence_holder: str | None = None,
    language: str | None = None,
    layout: str = "native",
    shard_bytes: int | None = None,
    benchmark: Benchmark | None = None,
    with_plot: bool = False,
    required_passes: RequiredPasses = required_passes,
    progress: Progress = silent,
) -> Path:
    """Writes the package to `dist`, whole or not at all, and returns `dist`. The same inputs give the same bytes.

    variants: those to pack, by default every one of the build that passed and has a cache layout that the package layout
    takes. licence, licence_url, licence_holder, base_model, language: see `resolve_terms`. layout: name of the package
    layout, see layouts/. shard_bytes: largest size of a shard, for layouts that have shards. benchmark: that of the Hub on which
    the gates ran. with_plot: whether the card has a picture, where what draws is installed. required_passes(build, variant):
    returns the reasons against a publication of the variant. A `dist` that holds the same package stays as it is.

    Raises ArtifactError naming every gate that a wanted variant lacks, if nothing passed, or for a damaged build; UsageError
    for an unknown licence or layout; OutputError if `dist` holds something else or cannot be written.
    """
    config = read_config(build)
    terms = resolve_terms(
        config.get("base_model", ""),
        base_model=base_model,
        licence=licence,
        licence_url=licence_url,
        holder=licence_holder,
        language=language,
    )
    arranged = load_layout(layout)
    arranged.check_shards(shard_bytes)
    artifacts = _passed_artifacts(build, variants, required_passes, arranged)
    checkpoint = config["checkpoint"]
    _check_one_checkpoint(build, checkpoint, artifacts)
    figures = {name: Figures.read(build, name).public() for name in artifacts}
    sweep_leftovers(build)
    if not shares_blocks(dist.parent):
        size = sum(entry.bytes for artifact in artifacts.values() for entry in artifact.manifest.files.values())
        check_free("package", size, Needs(memory=0.0, disk=1.0), dist.parent, progress)
    with scratch_folder(dist.parent) if dist.is_dir() else new_folder(dist, or_existing=True) as folder:
        with step(f"package: {layout}, {len(artifacts)} variants", progress):
            arranged.lay_out(build, list(artifacts), folder)
            if arranged.shard and shard_bytes is not None:
                arranged.shard(folder, list(artifacts), shard_bytes)
        facts = CardFacts(
            checkpoint["name"], checkpoint["sha256"], terms, arranged.config_for(config), artifacts, figures, arranged
        )
        if benchmark:
            write_bytes(folder / benchmark.path, eval_results(benchmark, facts).encode())
            facts = replace(facts, benchmark=benchmark.path)
        if with_plot and (picture := plots.plot(facts)):
            write_bytes(folder / plots.NAME, picture)
            facts = replace(facts, plot=plots.NAME)
        write_bytes(folder / "LICENSE", terms.notice(checkpoint, facts.runtime.title, list(artifacts)).encode())
        write_bytes(folder / "README.md", card(facts).encode())
        manifest = PackageManifest(
            name=checkpoint["name"],
            layout=layout,
            checkpoint_sha256=checkpoint["sha256"],
            base_model=terms.base,
            licence=terms.licence_id,
            variants={
                name: PackagedVariant(artifact.manifest.digest, tuple(r.to_dict() for r in figures[name].results))
                for name, artifact in artifacts.items()
            },
            files=write_sbom(facts, folder),
        )
        for name in artifacts:
            # Where the layout keeps a variant's files unchanged, the copies are checked, else the build.
            kept = (folder / name / "manifest.json").is_file()
            _check_judged((folder if kept else build) / name, figures[name])
        manifest.write(folder)
    _check_same(dist, manifest)  # which may have been there, or another run may have made it meanwhile
    return dist


def package_layouts(build: Path, dist: Path, layouts: Sequence[str], *, shard_bytes: int | None = None, **options) -> list[Path]:
    """Writes a package of each layout, as `package` does: to `dist` itself if there is one, else to `dist`/LAYOUT. Files that are
    equal are hard links of one, where copies take room. Returns the folders.

    options: of `package`. shard_bytes: for those of the layouts that have shards. Raises as `package`, for the first layout that
    cannot be written; those before it are there. Raises OutputError for several layouts where `dist` is a package itself.
    """
    names = list(dict.fromkeys(layouts))
    sharded = [name for name in names if load_layout(name).shard] or names  # of which the first says that it has no shards
    places = {name: dist / name if len(names) > 1 else dist for name in names}
    if len(names) > 1 and (dist / NAME).exists():
        found, todo = "a package", "remove it, or choose another folder"
        raise OutputError(f"{dist} is one package.", expected="a folder of packages, or nothing", found=found, todo=todo)
    for count, (name, place) in enumerate(places.items(), 1):
        package(build, place, layout=name, shard_bytes=shard_bytes if name in sharded else None, **options)
        if not shares_blocks(dist.parent):
            link_equal(list(places.values())[:count])
    return list(places.values())


def _passed_artifacts(
    build: Path, wanted: Sequence[str] | None, required_passes: RequiredPasses, layout: Layout
) -> dict[str, Artifact]:
    # Not the smoothed parent, nor builds for comparison such as int8-static-cold.
    known = [name for name, limits in read_limits().items() if limits.target == layout.runtime]
    names = list(dict.fromkeys(wanted or filter(layout.takes, known)))
    if not wanted:
        names = [name for name in names if (build / name / "manifest.json").is_file()]
    lacking = {}
    for name in names:
        if name not in known:
            lacking[name] = [f"no variant for publication; those are {', '.join(known)}"]
        elif not (build / name / "manifest.json").is_file():
            lacking[name] = ["not built"]
        else:
            lacking[name] = required_passes(build, name)
    reasons = "; ".join(f"{name}: {', '.join(gates)}" for name, gates in lacking.items() if gates)
    passed = [name for name in names if not lacking[name]]
    if not passed or (wanted and reasons):
        raise ArtifactError(
            f"{build} has variants that may not be packaged." if names else f"{build} has no variants.",
            expected="a pass on every required gate",
            found=f"missing or failed: {reasons}" if reasons else "nothing built",
            todo="run `nemoport validate`; a variant that fails its gates is not published",
        )
    artifacts = {}
    for name in passed:
        artifact = Artifact.open(build / name)
        if artifact.manifest.variant != name:
            raise ArtifactError(
                f"{artifact.folder} holds another variant.",
                expected=name,
                found=artifact.manifest.variant,
                todo="remove the folder and build the variant again",
            )
        artifacts[name] = artifact
    return artifacts


def _check_one_checkpoint(build: Path, checkpoint: CheckpointSection, artifacts: dict[str, Artifact]) -> None:
    """Raises ArtifactError unless every variant was made from the checkpoint of config.json."""
    others = [n for n, artifact in artifacts.items() if artifact.manifest.checkpoint_sha256 != checkpoint["sha256"]]
    if others or not checkpoint["name"]:
        raise ArtifactError(
            f"{build} mixes checkpoints.",
            expected=f"every variant made from the checkpoint of config.json, {checkpoint['sha256'][:12]}",
            found=f"others in {', '.join(others) or 'config.json'}",
            todo=f"remove {build} and build it again",
        )


def _check_judged(variant: Path, figures: Figures) -> None:
    """Raises ArtifactError unless the folder `variant`, as it is on the disk now, holds the files that every gate loaded."""
    found = artifact_sha256(variant)
    others = sorted({result.gate for result in figures.results if result.sha256 != found})
    if others or not figures.results:
        raise ArtifactError(
            f"The results of {variant.name} are not those of what would be packaged.",
            expected=f"results for files with digest {found[:12]}",
            found=f"other files in the results of {', '.join(others)}" if others else "no results",
            todo="run `nemoport validate` again",
        )


def _check_same(dist: Path, manifest: PackageManifest) -> None:
    """Raises OutputError unless `dist` holds the package of `manifest`, unchanged: it is replaced by nothing."""
    try:
        found = PackageManifest.read(dist).digest
    except ArtifactError:
        found = None
    if found != manifest.digest or hash_files(dist) != manifest.files:
        raise OutputError(
            f"{dist} exists already.",
            expected="nothing, or the same package",
            found="a package of other inputs, a damaged one, or something else",
            todo="remove it, or choose another folder",
        )
