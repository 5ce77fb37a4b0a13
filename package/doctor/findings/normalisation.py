"""A normalisation of the features that the model was not trained with, or that the consumer does not compute."""

from __future__ import annotations

from collections.abc import Iterator

from nemoport.foreign.folder import ForeignModel
from nemoport.package.doctor.check import Check, Found
from nemoport.package.doctor.examined import Examined

_NONE = ("", "na", "none", "null", "false")
PER_FEATURE = "per_feature"


def find(examined: Examined, model: ForeignModel) -> Iterator[Found]:
    folder, known, streaming = examined.folder, examined.consumer, model.encoder.ports.streaming
    own = folder.settings.spec
    stated = {one.place: _plain(one.value) for one in folder.settings.of("normalisation")}
    wanted = own.frontend.normalize if own else "NA" if streaming else ""
    for place, value in stated.items():
        if wanted and value != wanted:
            yield Found(place, f"{wanted}, of {'config.json' if own else 'a model that streams by its caches'}", value or "none")
    if not wanted and len(set(stated.values())) > 1:
        yield Found(next(iter(stated)), "one normalisation in every file", ", ".join(f"{p}: {v}" for p, v in stated.items()))
    if known:
        computed, is_ = known.normalisation[0 if streaming else 1], wanted or next(iter(stated.values()), "")
        if computed and is_ and computed != is_:
            yield Found(model.name, f"{computed}, which is what {known.title} computes", is_)


def _plain(value: object) -> str:
    return "NA" if str(value).lower() in _NONE or value in (None, False) else str(value)


CHECK = Check(
    "another normalisation of the features",
    "The encoder sees features of another scale in every frame. Statistics of an utterance do not exist in a stream; published "
    "settings of the streaming English model said per_feature, where it has none.",
    "State what the checkpoint's preprocessor has: NA for Nemotron, per_feature for Parakeet.",
    ("https://github.com/altunenes/parakeet-rs",),
    in_model=find,
)
