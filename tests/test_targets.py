"""What all targets share: they are found by their files, held to inherited limits, refused where they cannot be made."""

from dataclasses import replace

import pytest

from nemoport.cache_layout import KV_PREFIX
from nemoport.errors import UsageError
from nemoport.export import targets
from nemoport.export.target import Target
from nemoport.validate import limits

BLOCKS = """
[fp32]
required = ["wer", "structure"]
streams = 8
[fp32.wer]
max_empty = 0
reason = "all"
[other-int8]
target = "other"
like = "fp32"
required = ["wer"]
[other-int8.wer]
max_empty = 1
reason = "more"
[other-fp32]
target = "other"
like = "fp32"
"""


def test_limits_of_another_target_are_inherited_and_have_no_second_contract(tmp_path):
    path = tmp_path / "gates.toml"
    path.write_text(BLOCKS)
    found = limits.read_limits(path)
    assert set(found) == {"fp32", f"{KV_PREFIX}fp32", "other-fp32", "other-int8"}
    other = found["other-int8"]
    assert (other.required, other.streams, other.target, other.fp32) == (("wer",), 8, "other", "other-fp32")
    assert (other.get("wer", "max_empty"), found["other-fp32"].get("wer", "max_empty")) == (1, 0)
    assert found[f"{KV_PREFIX}fp32"].fp32 == f"{KV_PREFIX}fp32"


def test_what_cannot_be_made_is_refused(reference_checkpoint, tmp_path, monkeypatch):
    def export(target, precision="fp32"):
        return targets.export_target(reference_checkpoint, tmp_path, target, precision, None, progress=print)

    with pytest.raises(UsageError, match="Unknown target 'toaster'"):
        export("toaster")
    fake = Target("fake", {"fp32": None}, convert=None, extra="fake", modules=("no_such_package",))
    monkeypatch.setattr(targets, "targets", lambda: {"fake": fake})
    with pytest.raises(UsageError, match=r"pip install 'nemoport\[fake\]'"):
        export("fake")
    fake = replace(fake, modules=())
    with pytest.raises(UsageError, match="no precision 'int3'"):
        export("fake", "int3")
    assert not list(tmp_path.iterdir())
