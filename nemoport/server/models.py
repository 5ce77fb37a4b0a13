"""The models of a server: opened packages, by the names that clients choose them by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from nemoport.artifact import Artifact
from nemoport.errors import UsageError
from nemoport.hub_package import variant_folder
from nemoport.lookahead import chosen_lookahead, chosen_window
from nemoport.prompt import AUTO, PromptSpec
from nemoport.recognizer import Recognizer
from nemoport.runtimes import open_session
from nemoport.runtimes.onnxruntime.session import OnnxSession
from nemoport.search import search_of
from nemoport.server.batcher import Batcher
from nemoport.server.limits import Limits
from nemoport.server.metrics import Metrics
from nemoport.text import clipped
from nemoport.tokens import read_tokens

_SETTINGS_KEPT = 16  # recognizers with hotwords, which hold tables of the vocabulary


@dataclass(frozen=True)
class Opening:
    """How a package is opened. package: a folder or a Hub id; workers: threads that run batches; threads: of the runtime in each
    run; the rest as of `Recognizer.open`."""

    package: str
    workers: int = 1
    threads: int = 0
    provider: str = "cpu"
    language: str | None = None
    lookahead: int | None = None


class Model:
    """An opened package. name: package/variant."""

    def __init__(self, opening: Opening, limits: Limits, metrics: Metrics):
        """Raises ArtifactError, UsageError."""
        folder = variant_folder(opening.package, None).absolute()
        self.name, self.package, self.variant = f"{folder.parent.name}/{folder.name}", folder.parent.name, folder.name
        self._artifact = Artifact.open(folder)
        self.spec = self._artifact.spec
        self._pieces, self._filterbank = read_tokens(self._artifact.shared / "tokens.txt"), self._artifact.filterbank()
        self._language, self._lookahead = opening.language, opening.lookahead
        if self.spec.prompt and not opening.language and AUTO in self.spec.prompt.languages:
            self._language = AUTO
        self._session = open_session(self._artifact, opening.provider, opening.threads)
        if isinstance(self._session, OnnxSession):
            self._session.keep_apart()
        self.recognizer = lru_cache(_SETTINGS_KEPT)(self._recognizer)
        metrics.sessions.labels(self.name)  # 0, and not absent until the first
        self.batcher = Batcher(self._session, limits.batch, opening.workers, metrics, self.name)

    @property
    def languages(self) -> list[str]:
        """Languages of its prompt; none of a model without one."""
        return list(self.spec.prompt.languages) if self.spec.prompt else []

    def _recognizer(
        self,
        lookahead: int | None = None,
        language: str | None = None,
        hotwords: tuple[str, ...] = (),
        hotword_boost: float | None = None,
    ) -> Recognizer:
        """Returns a recognizer over the opened graphs with the settings of a session, by default the server's. Raises
        UsageError."""
        language = language or self._language
        if self.spec.prompt and language:
            language = _full_name(self.spec.prompt, language)
        return Recognizer(
            self._session,
            self._filterbank,
            self._pieces,
            chosen_lookahead(self._artifact, self._lookahead if lookahead is None else lookahead),
            language=language,
            search=search_of(self.spec, self._pieces, 1, hotwords, hotword_boost),
            longest_s=self._artifact.longest_s,
            window=chosen_window(self._artifact, None, None),
        )


def chunk_ms(recognizer: Recognizer) -> float:
    """Returns the audio that one run of the encoder takes, in milliseconds; 0 where it takes whole recordings."""
    looks = recognizer.window or recognizer.lookahead
    frames = looks + 1 if isinstance(looks, int) else looks.chunk if looks else 0
    return 1000 * frames * recognizer.session.spec.frame_seconds


class Models:
    """All of them, in the order of the command line; the first is the default."""

    def __init__(self, openings: Sequence[Opening], limits: Limits, metrics: Metrics):
        """Raises ArtifactError, UsageError for two of the same name."""
        self._models: dict[str, Model] = {}
        for opening in openings:
            model = Model(opening, limits, metrics)
            if model.name in self._models:
                todo = "rename the folder of one, or name it once"
                raise UsageError("Two packages have one name.", expected="different names", found=model.name, todo=todo)
            self._models[model.name] = model

    def __iter__(self):
        return iter(self._models.values())

    def find(self, name: str) -> Model:
        """Returns the model of a name: package/variant, or the package or the variant where that is one alone; the first for "".
        Raises UsageError."""
        named = [model for model in self if name in ("", model.name)]
        named = named or [model for model in self if name in (model.package, model.variant)]
        if named and (len(named) == 1 or not name):
            return named[0]
        raise UsageError(
            "This server has no such model." if not named else "Several models have this name.",
            expected=", ".join(model.name for model in (named or self)),
            found=clipped(repr(name)),
            todo="name one of these, or none for the first",
        )

    @property
    def are_alive(self) -> bool:
        """Whether the threads of all run."""
        return all(model.batcher.is_alive for model in self)

    def end(self) -> None:
        """Ends the threads of all."""
        for model in self:
            model.batcher.end()


def _full_name(prompt: PromptSpec, language: str) -> str:
    """Returns the name of a language in the model's dictionary: that of "de", which OpenAI's clients send, is the first of
    de-DE, de-AT."""
    if language not in prompt.languages and len(language) == 2:
        return next((name for name in prompt.languages if name.lower().startswith(f"{language.lower()}-")), language)
    return language
