"""Names of what can be chosen on the command line, of the registries that have them."""

from __future__ import annotations

from collections.abc import Iterable


def targets() -> Iterable[str]:
    from nemoport.export.targets import targets

    return targets()


def target_precisions() -> Iterable[str]:
    from nemoport.export.targets import targets

    return dict.fromkeys(name for target in targets().values() for name in target.precisions)


def precisions() -> Iterable[str]:
    from nemoport.quantize import precisions

    return (name for name in precisions() if name != "smoothed")  # which only others are made of


def all_precisions() -> Iterable[str]:
    return dict.fromkeys([*precisions(), *target_precisions()])


def variants() -> Iterable[str]:
    return (f"{layout}{name}" for layout in ("", "kv-") for name in precisions())


def judged() -> Iterable[str]:
    from nemoport.validate.limits import read_limits

    return read_limits()


def heads() -> Iterable[str]:
    from nemoport.heads import heads

    return heads()


def layouts() -> Iterable[str]:
    from nemoport.package.layouts import layouts

    return layouts()


def consumers() -> Iterable[str]:
    from nemoport.package.doctor.consumers import CONSUMERS

    return CONSUMERS


def measures() -> Iterable[str]:
    from nemoport.confidence import MEASURES

    return MEASURES


def scorers() -> Iterable[str]:
    from nemoport.evaluation.scorers import SCORERS

    return SCORERS


def flush_rules() -> Iterable[str]:
    from nemoport.chunker import FLUSH_RULES

    return FLUSH_RULES
