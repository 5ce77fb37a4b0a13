"""What else the named consumer needs: the form of the decoder, metadata, the order of axes."""

from __future__ import annotations

from collections.abc import Iterator

from nemoport.foreign.folder import ForeignModel
from nemoport.foreign.ports import SIGNAL
from nemoport.package.doctor.check import Check, Found
from nemoport.package.doctor.consumers import FUSED, SPLIT
from nemoport.package.doctor.examined import Examined


def find(examined: Examined, model: ForeignModel) -> Iterator[Found]:
    known, encoder = examined.consumer, model.encoder
    if known is None:
        return
    if known.streaming is False and encoder.ports.streaming:
        yield Found(model.name, f"an offline model: {known.title} keeps no caches", "a streaming one")
    form = FUSED if model.fused else SPLIT if model.predictor and model.joiner else ""
    if known.decoder and form and form != known.decoder:
        yield Found(model.parts[1].name, f"decoder and joint {known.decoder}, for {known.title}", form)
    if encoder.ports.streaming and (absent := [key for key in known.metadata if key not in encoder.graph.metadata]):
        yield Found(model.name, f"metadata for {known.title}: {', '.join(known.metadata)}", f"no {', '.join(absent)}")
    time_major = encoder.ports.inputs[SIGNAL].axes == (0, 2, 1)
    expected = known.time_major[0 if encoder.ports.streaming else 1]
    if expected is not None and expected != time_major:
        wanted, order = ("time", "bands") if expected else ("bands", "time")
        yield Found(model.name, f"features [B, {wanted}, {order}], for {known.title}", f"[B, {order}, {wanted}]")


CHECK = Check(
    "what else the named program needs",
    "The program refuses the package, or reads axes in another order: noise.",
    "Take the program's own layout of `nemoport package`.",
    in_model=find,
)
