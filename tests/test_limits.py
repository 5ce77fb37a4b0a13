"""gates.toml: what a variant inherits by `like`, which tables need a reason, and what is refused."""

import pytest

from nemoport.errors import ArtifactError, UsageError
from nemoport.validate import limits

FP32 = """
[fp32]
required = ["wer"]
streams = 8
[fp32.wer]
max_empty = 0
max_upper_end_points = 0.0
reason = "exact"
"""
FP16 = '[fp16]\nlike = "fp32"\n'


@pytest.fixture
def read(tmp_path):
    def of(text):
        path = tmp_path / "gates.toml"
        path.write_text(text)
        return limits.read_limits(path)

    return of


def test_limits_are_inherited_one_by_one_along_the_chain(read):
    found = read(
        FP32 + FP16 + '[fp16.wer]\nmax_upper_end_points = 0.5\nreason = "rounding"\n[int8]\nlike = "fp16"\nstreams = 1\n'
    )
    assert list(found) == ["fp32", "fp16", "int8", "kv-fp32", "kv-fp16", "kv-int8"]
    assert found["fp32"].gates["wer"] == limits.GateLimits({"max_empty": 0.0, "max_upper_end_points": 0.0}, "exact")
    assert found["fp16"].gates["wer"] == limits.GateLimits({"max_empty": 0.0, "max_upper_end_points": 0.5}, "rounding")
    assert found["int8"].gates == found["fp16"].gates
    assert [found[name].streams for name in found] == [8, 8, 1] * 2
    assert {one.required for one in found.values()} == {("wer",)}


def test_a_variant_of_another_target_passes_the_target_on(read):
    found = read(FP32 + '[other-fp32]\ntarget = "other"\nlike = "fp32"\n[other-int8]\nlike = "other-fp32"\n')
    assert list(found) == ["fp32", "kv-fp32", "other-fp32", "other-int8"]
    assert (found["other-int8"].target, found["other-int8"].fp32) == ("other", "other-fp32")


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("", "exact"),
        ("max_empty = 0", "exact"),
        ('reason = "measured anew"', "measured anew"),
        ("max_empty = 1", None),
        ("max_difference_points = 1.0", None),
        ('max_empty = 1\nreason = ""', None),
    ],
)
def test_only_what_differs_needs_a_reason(read, table, reason):
    text = FP32 + FP16 + f"[fp16.wer]\n{table}\n[int8]\nlike = 'fp16'\n"
    if reason is None:
        with pytest.raises(ArtifactError, match=r"gates.toml states limits(?s:.*)none in \[fp16.wer\]\n"):
            read(text)
    else:
        assert {name: one.gates["wer"].reason for name, one in read(text).items()}["int8"] == reason


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FP32 + '[fp16]\nlike = "fp23"\n', "fp16 -> fp23"),
        (FP32 + '[fp16]\nlike = "kv-fp32"\n', "fp16 -> kv-fp32"),
        (FP32 + '[fp16]\nlike = "fp16"\n', "fp16 -> fp16"),
        (FP32 + '[a]\nlike = "b"\n[b]\nlike = "c"\n[c]\nlike = "b"\n', "a -> b -> c -> b\n"),
        (FP32 + FP16 + "stream = 1\n", r"unknown key stream in \[fp16\]"),
        (FP32 + FP16 + "[fp16.wre]\nmax_empty = 0\n", r"unknown key wre in \[fp16\]"),
        (FP32 + FP16 + "streams = '8'\n", r"streams = '8' in \[fp16\]"),
        (FP32 + FP16 + "[fp16.wer]\nmax_empty = '0'\n", r"max_empty = '0' in \[fp16.wer\]"),
        (FP32 + FP16 + "[fp16.wer]\nmax_empty = true\n", r"max_empty = True in \[fp16.wer\]"),
        (FP32 + FP16 + "[fp16.wer]\nreason = 1\n", r"reason = 1 in \[fp16.wer\]"),
        ("streams = 8\n" + FP32, "streams outside of a table"),
        ("[fp32]\nstreams = 8\n", r"no required in \[fp32\]"),
        (FP32 + FP16 + "[fp16.wre]\n[fp16.tokesn]\n", r"unknown key wre in \[fp16\]; unknown key tokesn in \[fp16\]"),
        (FP32 + "[fp32.batch]\n", r"none in \[fp32.batch\]\n"),
        (FP32 + "max_lost = 1.000001e15\n", r"max_lost = 1000001000000000.0 in \[fp32.wer\]"),
        (FP32 + "max_lost = -1.000001e15\n", r"max_lost = -1000001000000000.0 in"),
        (FP32 + "max_lost = 1_000_000_000_000_001\n", r"max_lost = 1000000000000001 in"),
        (FP32 + "max_lost = nan\n", r"max_lost = nan in"),
    ],
)
def test_what_the_file_may_not_state(read, text, message):
    """The error names the file, too."""
    with pytest.raises(ArtifactError, match=rf"gates.toml (states|names)(?s:.*){message}"):
        read(text)


def test_the_largest_file_and_figure(read):
    """Both sides of the bounds: figures, tables, links of `like`."""
    assert read(FP32 + "max_lost = 1e15\n")["fp32"].get("wer", "max_lost") == 1e15
    tables = "".join(f'[a{i}]\nlike = "fp32"\n' for i in range(999))
    assert len(read(FP32 + tables)) == 2 * 1000
    with pytest.raises(ArtifactError, match="1001 tables, more than 1000"):
        read(FP32 + tables + FP16)
    links = "".join(f'[a{i}]\nlike = "a{i - 1}"\n' for i in range(1, 20))
    assert "a19" in read(FP32 + '[a0]\nlike = "fp32"\n' + links)
    with pytest.raises(ArtifactError, match="a20 -> a19"):
        read(FP32 + '[a0]\nlike = "fp32"\n' + links + '[a20]\nlike = "a19"\n')


def test_the_digest_is_of_the_file(tmp_path):
    path = tmp_path / "gates.toml"
    path.write_text("")
    assert limits.limits_digest(path) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # of nothing


def test_a_single_limit_is_overridden_in_a_copy():
    found = limits.limits_of("int8-static")
    changed = found.override("longform", minutes=3)
    assert (changed.get("longform", "minutes"), found.get("longform", "minutes")) == (3, 10)
    assert changed.get("longform", "max_stalls") == found.get("longform", "max_stalls")
    assert changed.gates["wer"] == found.gates["wer"]
    with pytest.raises(UsageError, match="no seconds for int8-static"):
        found.override("longform", seconds=3)


def test_every_required_gate_has_limits():
    for variant, found in limits.read_limits().items():
        assert set(found.required) <= set(found.gates), variant
