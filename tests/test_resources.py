"""What a stage takes is compared with what is free before it begins; only what surely does not fit is refused."""

from pathlib import Path

import pytest

from nemoport import resources
from nemoport.errors import OutputError, ResourceError
from nemoport.progress import silent
from nemoport.resources import Needs, check_free, free_disk, free_memory, shares_blocks

ROOT = Path(__file__).resolve().parent.parent
GIB = 1 << 30
NEEDS = Needs(memory=3.0, held=2.0, disk=1.0, kept=2.0)  # of a GiB of weights, below


@pytest.fixture
def free(monkeypatch):
    """Sets what is free: bytes of memory, of swap, and on the disk; None where the system does not say."""

    def change(memory=None, swap=0, disk=None):
        monkeypatch.setattr(resources, "free_memory", lambda: None if memory is None else (int(memory), int(swap)))
        monkeypatch.setattr(resources, "free_disk", lambda folder: None if disk is None else int(disk))

    return change


def lines(weights=GIB, kept=0):
    printed = []
    check_free("export", weights, NEEDS, Path("build"), printed.append, kept)
    return printed


def test_enough_passes_and_says_what_a_large_stage_takes(free):
    free(memory=3 * GIB, disk=3 * GIB)
    assert lines() == ["export: takes about 3.0 GiB of memory, 3.0 GiB on the disk of build"]
    assert lines(GIB // 4) == []


def test_unknown_passes(free):
    free()
    assert len(lines()) == 1


def test_too_little_memory_is_refused(free):
    free(memory=GIB, disk=3 * GIB)
    with pytest.raises(ResourceError, match="too little memory for export") as raised:
        lines()
    assert (raised.value.expected, raised.value.found) == ("2.0 GiB free, swap included", "1.0 GiB")
    free(memory=GIB, swap=GIB, disk=3 * GIB)  # may be moved there
    assert lines()[1:] == ["export: only 1.0 GiB of memory are free: it may become slow, or be ended by the system"]


def test_too_little_disk_is_refused(free):
    free(disk=2 * GIB)
    with pytest.raises(OutputError, match="too little room on the disk for export") as raised:
        lines()
    assert raised.value.found == "2.0 GiB" and raised.value.todo
    assert lines(kept=GIB) == ["export: takes about 3.0 GiB of memory, 2.0 GiB on the disk of build"]  # of it is there
    assert len(lines(kept=9 * GIB)) == 1
    free(disk=GIB // 2)
    with pytest.raises(OutputError, match="1.0 GiB free"):
        lines(kept=9 * GIB)
    free(disk=2.8 * GIB)
    assert lines()[1:] == ["export: only 2.8 GiB are free where build is written: it may be too little"]


def test_temporary_files(free, tmp_path, monkeypatch):
    """They take their room beside what is written, or on another disk."""
    needs = Needs(memory=0.0, disk=1.0, temporary=2.0)
    printed = []
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    free(disk=2 * GIB)
    with pytest.raises(OutputError, match="3.0 GiB free where .*build"):
        check_free("fp16", GIB, needs, tmp_path / "build", silent)
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second disk")
    monkeypatch.setattr("tempfile.tempdir", str(other))
    check_free("fp16", GIB, needs, tmp_path / "build", printed.append)
    assert printed == [f"fp16: takes about 1.0 GiB on the disk of {tmp_path / 'build'}, 2.0 GiB on the disk of {other}"]
    free(disk=GIB)
    with pytest.raises(OutputError, match=f"2.0 GiB free where {other} is written"):
        check_free("fp16", GIB, needs, tmp_path / "build", silent)


def system(root, groups="", **files):
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(
        "MemTotal: 16000 kB\nMemFree: 10 kB\nMemAvailable:  8000 kB\nSwapFree: 500 kB\nHugePages_Total: 0\n"
    )
    if groups:
        (root / "proc/self/cgroup").write_text(groups)
    for path, text in files.items():
        place = root / "sys/fs/cgroup" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return free_memory(root)


def test_memory_of_the_system(tmp_path):
    assert free_memory(tmp_path) is None  # macOS, Windows
    assert system(tmp_path) == (8000 << 10, 500 << 10)


V2 = {"app/memory.max": "max\n", "app/memory.current": "1\n", "app/memory.stat": "anon 5\n"}


@pytest.mark.parametrize(
    "groups, files, left",
    [
        (
            "0::/app\n",
            V2
            | {
                "memory.max": "1000000\n",
                "memory.current": "400000\n",
                "memory.stat": "inactive_file 60000\nactive_file 40000\n",
            },
            700_000,
        ),
        ("0::/\n", {"memory.max": "1000\n", "memory.current": "4000\n", "memory.stat": "anon 4000\n"}, 0),
        ("0::/app\n", V2, 8000 << 10),
        (
            "9:cpu:/x\n4:memory:/docker/of-the-host\n0::/\n",
            {
                "memory/memory.limit_in_bytes": "1000000\n",
                "memory/memory.usage_in_bytes": "500000\n",
                "memory/memory.stat": "inactive_file 7\ntotal_inactive_file 100000\ntotal_active_file 0\n",
            },
            600_000,
        ),
        (
            "4:memory:/\n",
            {
                "memory/memory.limit_in_bytes": "9223372036854771712\n",
                "memory/memory.usage_in_bytes": "5\n",
                "memory/memory.stat": "\n",
            },
            8000 << 10,
        ),
    ],
    ids=["2, of the parent", "2, used up", "2, none", "1, in a container", "1, none"],
)
def test_memory_of_a_control_group(tmp_path, groups, files, left):
    assert system(tmp_path, groups, **files) == (left, 500 << 10)


def test_this_system(tmp_path):
    assert free_disk(tmp_path / "absent" / "too") == free_disk(tmp_path) or free_disk(tmp_path) > GIB
    memory = free_memory()
    assert memory is None or memory[0] > 100 << 20
    assert shares_blocks(tmp_path) in (True, False) and list(tmp_path.iterdir()) == []


def files(folder):
    return sorted(path for path in folder.rglob("*"))


def test_export(free, reference_checkpoint, tmp_path):
    from nemoport.export.build import export_checkpoint

    free(memory=1 << 20)
    with pytest.raises(ResourceError, match="kv-fp32"):
        export_checkpoint(reference_checkpoint, tmp_path / "build", "kv")
    free(disk=1 << 20)
    with pytest.raises(OutputError, match="kv-fp32"):
        export_checkpoint(reference_checkpoint, tmp_path / "build", "kv")
    assert files(tmp_path) == []


@pytest.mark.parametrize("variant", ["fp16", "int8-dynamic", "int8-static", "int8-weight"])
def test_quantize(free, build, tmp_path, capsys, variant):
    from quantizing import short_manifest

    from nemoport.cli import main

    manifest, before = short_manifest(tmp_path), files(build)
    command = ["quantize", variant, "--build", str(build), "--calibration", str(manifest)]
    free(memory=1 << 20)
    assert main(command) == 2 and "too little memory" in capsys.readouterr().err
    free(disk=1 << 20)
    assert main(command) == 2 and "too little room on the disk" in capsys.readouterr().err
    assert files(build) == before


def test_every_precision_states_what_it_takes():
    pytest.importorskip("onnx")
    from nemoport.quantize import precisions

    assert [name for name, precision in precisions().items() if not (precision.needs.held and precision.needs.disk)] == []


def test_sensitivity(free, build, tmp_path, monkeypatch):
    from quantizing import quiet, short_manifest

    from nemoport import quantize
    from nemoport.artifact import Artifact

    monkeypatch.setattr(quantize, "_build", lambda *_: Artifact.open(build / "fp32"))  # its parent, which is refused before
    free(memory=1 << 20)
    with pytest.raises(ResourceError, match="sensitivity"):
        quantize.measure_sensitivity(build, short_manifest(tmp_path), progress=quiet)


def test_nemo(free, reference_checkpoint):
    from nemoport.validate.nemo_process import in_nemo

    free(memory=1 << 20)
    with pytest.raises(ResourceError, match="NeMo"), in_nemo(reference_checkpoint, {"task": "record"}, silent):
        pytest.fail("must not be entered")
    free(disk=1 << 20)
    with pytest.raises(OutputError, match="NeMo"), in_nemo(reference_checkpoint, {"task": "export"}, silent):
        pytest.fail("must not be entered")


def test_validate(free, reference_checkpoint, build):
    pytest.importorskip("jiwer")
    from nemoport.validate.run import validate

    free(memory=1 << 20)
    before = files(build)
    with pytest.raises(ResourceError, match="validate"):
        validate(reference_checkpoint, build, ROOT / "reference" / "audio" / "eval.jsonl", ["fp32"])
    assert files(build) == before


def test_shard(free, build, tmp_path):
    from nemoport.artifact import ENCODER
    from nemoport.package.shards import shard

    free(disk=1 << 20)
    with pytest.raises(OutputError, match="too little room on the disk for shard"):
        shard(build / "fp32" / ENCODER, tmp_path / "sharded", 10**7)
    assert files(tmp_path) == []
