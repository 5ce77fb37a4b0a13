"""An encoder without caches in a package that is meant to stream."""

from __future__ import annotations

from collections.abc import Iterator

from nemoport.foreign.folder import ForeignModel
from nemoport.package.doctor.check import Check, Found
from nemoport.package.doctor.examined import Examined

_WORDS = ("nemotron", "streaming", "cache-aware", "cache_aware", "realtime")


def find(examined: Examined, model: ForeignModel) -> Iterator[Found]:
    folder, known = examined.folder, examined.consumer
    if model.encoder.ports.streaming or (folder.settings.spec and folder.settings.spec.streaming is None):
        return
    texts = [*(str(one.value) for one in folder.settings.of("model type")), folder.path.resolve().name, folder.repository]
    reasons = [
        f"{one.place} is of a streaming model" for one in folder.settings.of("streaming") + folder.settings.of("left context")
    ]
    reasons += [f"it is called {text}" for text in texts if any(word in text.lower() for word in _WORDS)]
    if known and known.streaming:
        reasons.append(f"{known.title} runs streaming models alone")
    if reasons:
        yield Found(model.name, f"inputs for caches: {reasons[0]}", ", ".join(model.encoder.graph.interface.inputs))


CHECK = Check(
    "an offline graph where streaming was meant",
    "NeMo exports the offline encoder unless `cache_support` is set, without a warning. Fed by chunks it forgets what was: "
    "words at every chunk's edge are lost.",
    "Export with `model.set_export_config({'cache_support': 'True'})`, or with `nemoport export`.",
    ("https://github.com/k2-fsa/sherpa-onnx/issues/3040",),
    in_model=find,
)
