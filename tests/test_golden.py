"""`verify --golden`: frames that NeMo's own model recorded are found again, in both forms of files; a damaged artifact is not."""

import io
import json
import shutil
import zipfile
from types import SimpleNamespace
from urllib.request import Request

import damage
import numpy as np
import pytest

from nemoport import array_file
from nemoport.array_file import read_arrays
from nemoport.cli import main
from nemoport.download import _OnlyHttps, address_of, download
from nemoport.errors import ArtifactError, UsageError
from nemoport.package.golden import hold
from nemoport.package.opening import variants_of
from nemoport.package.verify_golden import verify_golden
from nemoport.validate.limits import limits_of

REVISION = "7a9b763e6c5fb103da690219c049fac917aa50b1"


@pytest.fixture(scope="module")
def golden(reference_checkpoint, tmp_path_factory):
    """offline.npz and stream.npz of the reference, recorded by NeMo."""
    pytest.importorskip("nemo")
    from nemoport.reference.golden import record_offline, record_stream

    folder = tmp_path_factory.mktemp("golden")
    record_offline(reference_checkpoint, folder / "offline.npz")
    record_stream(reference_checkpoint, folder / "stream.npz")
    return folder


def read(path):
    return read_arrays(path, "")


def test_recorded_arrays_are_those_of_the_published_files(golden):
    offline, stream = read(golden / "offline.npz"), read(golden / "stream.npz")
    assert {"feats", "enc_out", "tokens", "pred_out", "joint_out", "meta"} == set(offline)
    assert {"f0", "f1", "out0", "out1", "len0", "len1", "cl1", "cl2", "meta"} == set(stream)
    assert (offline["feats"].shape[2], offline["enc_out"].shape[2], offline["pred_out"].shape[2]) == (131, 18, 5)
    assert (stream["f0"].shape[2], stream["out1"].shape[2]) == (120, 14)
    assert [stream[name].tolist() for name in ("len0", "len1", "cl1", "cl2")] == [[14], [14], [14], [28]]


@pytest.mark.parametrize("form, arrays", [("offline", ["enc_out", "joint_out"]), ("stream", ["out0", "out1"])])
def test_an_export_gives_what_nemo_recorded(build, golden, capsys, form, arrays):
    assert main(["verify", str(build), "--golden", str(golden / f"{form}.npz"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    frames = [one for one in found["variants"]["fp32"] if one["array"] in arrays]
    assert found["passed"] and [one["array"] for one in frames] == arrays
    assert all(one["largest"] < 3e-5 and one["rms_ratio"] < 3e-6 for one in frames)


def swap_caches(build):
    damage.edit_graph(build, "encoder_model.onnx", damage.reverse_layers)


def scale_a_matrix(build):
    damage.edit_weight(
        build, "encoder_model.onnx", lambda name: name == "layers.0.feed_forward1.linear1.weight", lambda w: w * 1.001
    )


def first_target_is_another(build):
    blank = json.loads((build / "config.json").read_text())["spec"]["decoding"]["vocab_size"]
    damage.blank_row_from_token_0(build, blank)


@pytest.mark.parametrize(
    "form, harm, differing",
    [
        ("stream", swap_caches, {"out1"}),
        ("offline", swap_caches, {"enc_out"}),
        ("offline", scale_a_matrix, {"enc_out"}),
        ("offline", first_target_is_another, {"joint_out"}),
    ],
)
def test_a_damaged_artifact_differs(build, golden, tmp_path, capsys, form, harm, differing):
    damaged = shutil.copytree(build, tmp_path / "build")
    harm(damaged)
    assert main(["verify", str(damaged), "--golden", str(golden / f"{form}.npz"), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)["variants"]["fp32"]
    assert {one["array"] for one in found if not one["passed"]} == differing


@pytest.mark.parametrize(
    "form, change, message",
    [
        ("offline", {"feats": np.zeros((1, 80, 131), np.float32)}, "feats of another shape"),
        ("offline", {"enc_out": np.zeros((1, 1024, 18), np.float32)}, "enc_out of another shape"),
        ("offline", {"joint_out": np.zeros((1, 18, 4, 1025), np.float32)}, "joint_out of another shape"),
        ("offline", {"feats": np.zeros((1, 128, 131), np.int64)}, "another shape or type"),
        ("offline", {"tokens": np.full((1, 4), 99_999)}, "tokens that the model does not have"),
        ("offline", {"enc_out": None}, "no enc_out"),
        ("offline", {"feats": None}, "no known arrays"),
        ("stream", {"f0": np.zeros((1, 128, 100), np.float32)}, "windows that"),
        ("stream", {"out0": np.zeros((1, 128, 9), np.float32)}, "of another shape|windows that"),
        ("stream", {"out1": None}, "no out1"),
    ],
)
def test_arrays_of_another_model_are_named(build, golden, tmp_path, form, change, message):
    arrays = {**read(golden / f"{form}.npz"), **change}
    np.savez(tmp_path / "other.npz", **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(ArtifactError, match=message):
        verify_golden(build, str(tmp_path / "other.npz"))


def test_another_model_is_unusable_input(build, golden, tmp_path):
    np.savez(tmp_path / "other.npz", **{**read(golden / "stream.npz"), "f0": np.zeros((1, 80, 120), np.float32)})
    assert main(["verify", str(build), "--golden", str(tmp_path / "other.npz")]) == 2


def test_wrong_counts_of_frames_differ_whatever_the_precision(build, golden):
    arrays = {**read(golden / "stream.npz"), "cl2": np.array([27])}
    found = hold(variants_of(build)["fp32"](), arrays, limits_of("int8-dynamic"))  # whose frames may differ by 2
    assert [one.line() for one in found if not one.passed] == ["cl2: DIFFERS by 1 frames"]


# Files that anybody made


def packed(path, name, content):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, content)
    return path


def npy(shape, dtype="<f4", content=b""):
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"shape": shape, "fortran_order": False, "descr": dtype})
    return head.getvalue() + content


def test_a_pickle_is_not_opened(tmp_path):
    np.savez(tmp_path / "a.npz", feats=np.array([damage.Payload(tmp_path / "mark")], object))
    with pytest.raises(ArtifactError, match="Python objects"):
        read(tmp_path / "a.npz")
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    "content, message",
    [
        (npy((1 << 40,)), "0 bytes for an array"),
        (npy((2,), content=b"\0" * 4), "4 bytes for an array"),
        (npy((1,), content=b"\0" * 400), "400 bytes for an array"),
        (b"\0" * (1 << 21), "1 arrays of 2097152 bytes"),
        (b"no array", "magic"),
    ],
)
def test_sizes_that_are_not_there_are_not_allocated(tmp_path, content, message):
    with pytest.raises(ArtifactError, match=message):
        array_file.read_arrays(packed(tmp_path / "a.npz", "feats.npy", content), "", most_bytes=1 << 20)


def test_no_archive_is_an_error_and_arrays_come_back(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"text")
    with pytest.raises(ArtifactError, match="cannot be read"):
        read(tmp_path / "a.npz")
    wanted = {"a": np.arange(6.0).reshape(2, 3), "b": np.asfortranarray(np.arange(6).reshape(2, 3)), "c": np.array("text")}
    np.savez_compressed(tmp_path / "b.npz", **wanted)
    found = read(tmp_path / "b.npz")
    assert all(np.array_equal(found[name], array) and found[name].dtype == array.dtype for name, array in wanted.items())


# Addresses


@pytest.mark.parametrize(
    "place, address",
    [
        ("https://github.com/o/r/blob/abc/data/a.npz", "https://raw.githubusercontent.com/o/r/abc/data/a.npz"),
        (f"org/name@{REVISION}:golden/a.npz", f"https://huggingface.co/org/name/resolve/{REVISION}/golden/a.npz"),
        ("https://huggingface.co/o/n/blob/main/a.npz", "https://huggingface.co/o/n/resolve/main/a.npz"),
        ("https://example.org/a.npz", "https://example.org/a.npz"),
        ("dist/a.npz", None),
    ],
)
def test_addresses(place, address):
    assert address_of(place) == address


class Opener:
    """Answers with `content`, as urllib's opener does."""

    def __init__(self, content):
        self.content = content

    def open(self, request, timeout):
        self.asked = request.full_url
        return io.BytesIO(self.content)


def test_a_file_is_downloaded_and_its_hash_shown(build, golden, monkeypatch, capsys):
    import hashlib

    from nemoport.package import verify_golden as module

    content = (golden / "stream.npz").read_bytes()
    opener = Opener(content)
    monkeypatch.setattr(module, "download", lambda address, most: download(address, most, opener))
    assert main(["verify", str(build), "--golden", f"org/name@{REVISION}:a.npz"]) == 0
    assert opener.asked == f"https://huggingface.co/org/name/resolve/{REVISION}/a.npz"
    assert f"{opener.asked}, sha256 {hashlib.sha256(content).hexdigest()}" in capsys.readouterr().out


@pytest.mark.parametrize("address", ["http://example.org/a", "file:///etc/passwd", "ftp://example.org/a"])
def test_https_alone(address):
    with pytest.raises(UsageError, match="Nothing is downloaded"):
        download(address, 10, Opener(b""))
    with pytest.raises(UsageError, match="Nothing is downloaded"):  # as where a redirect leads
        _OnlyHttps().redirect_request(Request("https://a.org"), None, 302, "", {}, address)


def test_no_more_than_wanted_is_read():
    assert download("https://example.org/a", 3, Opener(b"abc")) == b"abc"
    with pytest.raises(UsageError, match="too large"):
        download("https://example.org/a", 3, Opener(b"abcd"))

    def unreachable(request, timeout):
        raise OSError("no network")

    with pytest.raises(UsageError, match="no network"):
        download("https://example.org/a", 3, SimpleNamespace(open=unreachable))


def test_a_file_that_is_not_there(build):
    assert main(["verify", str(build), "--golden", "absent.npz"]) == 2
