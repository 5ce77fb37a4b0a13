"""Package layouts, as a type: how the variants of a build are arranged for a consumer, and the parts of the card on that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from nemoport.artifact import ONNXRUNTIME, Artifact
from nemoport.cache_layout import KV, NEMO, cache_layout_of
from nemoport.config import RuntimeConfig
from nemoport.errors import UsageError
from nemoport.package.card_data import Figures
from nemoport.package.terms import Terms
from nemoport.runtime import Runtime
from nemoport.runtimes import load_runtime
from nemoport.session import Session
from nemoport.spec import Lookahead, ModelSpec
from nemoport.tokens import BYTE_PIECE, WORD_START, Pieces


def _unchanged(config: RuntimeConfig) -> RuntimeConfig:
    return config


FrontEnds = Mapping[str, Sequence[object]]
# What consumers have built in of NeMo's front end; they differ in the bands and the normalisation that they have.
USUAL_FRONT_END: FrontEnds = {
    "sample_rate_hz": (16000,),
    "n_fft": (512,),
    "win_samples": (400,),
    "hop_samples": (160,),
    "preemphasis": (0.97,),
    "log_guard": (2.0**-24,),
}


def front_end_problems(spec: ModelSpec, computed: FrontEnds) -> list[str]:
    """Each field of a model's front end whose value is none that a consumer computes; `computed` names every field."""
    found = asdict(spec.frontend)
    others = [(name, values) for name, values in computed.items() if found[name] not in values]
    return [f"a front end with {name} {found[name]}, where it has {_listed(values)}" for name, values in others]


def piece_problems(pieces: Pieces, blank: str, *, spaces_inside: bool) -> list[str]:
    """Each thing in a vocabulary that a consumer which reads a piece and its id a line would spell otherwise, or not read.

    blank: what it takes for the blank; spaces_inside: whether a word may begin within a piece.
    """
    found = {
        "with a space": [p for p in pieces if " " in p],
        f"named {blank}, as the blank": [p for p in pieces if p == blank],
        "of single bytes, which it prints as they stand": [
            p for i, p in enumerate(pieces) if BYTE_PIECE.fullmatch(p) and i not in pieces.rule.plain
        ],
        f"with {WORD_START} inside, which it prints": [p for p in pieces if WORD_START in p[1:] and not spaces_inside],
    }
    return [f"pieces {what}: {', '.join(map(repr, some[:3]))}" for what, some in found.items() if some]


def duration_problems(spec: ModelSpec) -> list[str]:
    """The durations of a TDT model, if a consumer that takes their places for them would go on by other ones."""
    found = list(spec.decoding.durations)
    return [] if found == [*range(len(found))] else [f"durations {found}, which it takes to be 0, 1, 2, ..."]


def _listed(values: Sequence[object]) -> str:
    return f"{values[0]} to {values[-1]}" if isinstance(values, range) else " or ".join(map(str, values))


@dataclass(frozen=True)
class Layout:
    """A consumer's arrangement of files.

    name: by which the layout is chosen. files: path -> what the file holds, for the card; ctc_files: those of CTC models, where
    the layout takes them.
    lay_out(build, variants, folder): fills the empty `folder`; card, licence and manifest are added afterwards. Raises
    UsageError for a model or a variant that the consumer cannot run.
    graphs(folder, variant, head): graphs of a variant in such a package, encoder first; a single one holds encoder and decoder.
    usage(facts): the card's section on how to run the graphs.
    config_for(config): the package's config.json, made of the build's.
    runtime: name of the runtime whose variants the layout takes. cache_layouts: those of the variants that are packed where
    none are named. variants: all that it takes, where the consumer has names for some only.
    open_variant(folder, variant, spec): a session over graphs with inputs and outputs other than ours; None where they
    are ours.
    artifact_folder(folder, variant): folder in which nemoport itself opens a variant of the package; None where it cannot.
    shard(folder, variants, limit_bytes): writes the weights again, in files below a limit; None where the consumer takes no
    shards.
    front_ends(spec): the front ends that the consumer computes by itself, a field of FrontendSpec -> its values; None where the
    package carries the front end, or nemoport computes it from config.json.
    problems(spec, pieces): each thing of a model that the consumer cannot run, whatever the variant.
    intro(facts), rules(facts): how the graphs stream, and the card's section on how to run them; only where these differ from
    those of the ONNX graphs. limits: lines of the card's section on limits.
    tags: those by which the consumer's users find packages on the Hub; None for the layout's name. library: the Hub's name of the
    consumer, for `library_name`; "" for that of the graphs' format. head: further keys of
    the card's head."""

    name: str
    files: Mapping[str, str]
    lay_out: Callable[[Path, Sequence[str], Path], None]
    graphs: Callable[[Path, str, str], tuple[Path, ...]]
    usage: Callable[[CardFacts], str]
    config_for: Callable[[RuntimeConfig], RuntimeConfig] = _unchanged
    runtime: str = ONNXRUNTIME
    cache_layouts: tuple[str, ...] = (NEMO, KV)
    variants: tuple[str, ...] | None = None
    ctc_files: Mapping[str, str] | None = None
    open_variant: Callable[[Path, str, ModelSpec], Session] | None = None
    artifact_folder: Callable[[Path, str], Path] | None = None
    shard: Callable[[Path, Sequence[str], int], None] | None = None
    front_ends: Callable[[ModelSpec], FrontEnds] | None = None
    problems: Callable[[ModelSpec, Pieces], Sequence[str]] = lambda spec, pieces: ()
    intro: Callable[[CardFacts], str] | None = None
    rules: Callable[[CardFacts], str] | None = None
    limits: tuple[str, ...] = ()
    tags: tuple[str, ...] | None = None
    library: str = ""
    head: Mapping[str, object] = field(default_factory=dict)

    def takes(self, variant: str) -> bool:
        """Whether a variant is packed where none are named."""
        return cache_layout_of(variant) in self.cache_layouts and (self.variants is None or variant in self.variants)

    @property
    def taken(self) -> str:
        """The variants that it takes, for a message."""
        return ", ".join(self.variants or ()) or f"any with the cache layout {' or '.join(self.cache_layouts)}"

    def variant_folder(self, folder: Path, variant: str) -> Path:
        """Returns where the files of one variant are, if it has a folder of its own."""
        return self.artifact_folder(folder, variant) if self.artifact_folder else folder / variant

    def check_shards(self, shard_bytes: int | None) -> None:
        """Raises UsageError where shards are asked for and the consumer takes none."""
        if shard_bytes is not None and self.shard is None:
            raise UsageError(
                f"The layout {self.name} has no shards.",
                expected="no --shard-bytes",
                found=str(shard_bytes),
                todo="leave it out, take the layout onnx-asr, or shard a graph with `nemoport shard`",
            )


@dataclass(frozen=True)
class CardFacts:
    """Content of a model card. config: config.json of the package; artifacts and figures: of each packaged variant, in the
    card's order; plot, benchmark: path of their picture, and of their results on a benchmark of the Hub; ""
    where there is none."""

    name: str
    checkpoint_sha256: str
    terms: Terms
    config: RuntimeConfig
    artifacts: dict[str, Artifact]
    figures: dict[str, Figures]
    layout: Layout
    plot: str = ""
    benchmark: str = ""

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each variant's files."""
        entries = {name: artifact.manifest.files.values() for name, artifact in self.artifacts.items()}
        return {name: sum(entry.bytes for entry in found) for name, found in entries.items()}

    @property
    def spec(self) -> ModelSpec:
        return next(iter(self.artifacts.values())).spec

    @property
    def lookaheads(self) -> list[Lookahead]:
        """Lookaheads that the variants serve: in encoder frames, ascending; None, and windows of a buffered one, of an offline
        model."""
        served = next(iter(self.artifacts.values())).lookaheads
        return sorted(served, key=lambda one: one if isinstance(one, int) else -1)

    @property
    def cache_layouts(self) -> set[str]:
        """Cache layouts of the variants. The recipe records it where the runtime is not onnxruntime, else the name shows it."""
        recipes = {name: artifact.manifest.recipe.parameters for name, artifact in self.artifacts.items()}
        return {parameters.get("contract", cache_layout_of(name)) for name, parameters in recipes.items()}

    @property
    def runtime(self) -> Runtime:
        return load_runtime(self.layout.runtime)
