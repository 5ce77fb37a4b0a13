"""Releases: hashes, signatures, bills of materials, pinned dependencies and their licences, known vulnerabilities."""

import base64
import json
import os
import random
import re
import runpy
import shutil
import socket
import subprocess
import sys
import tomllib
import zipfile
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from nemoport.cli import main
from nemoport.errors import ArtifactError, UsageError
from nemoport.package.assemble import package
from nemoport.package.hub import publish
from nemoport.package.manifest import NAME, SBOM, SIGNATURE, SUMS, PackageManifest, hash_files
from nemoport.package.signature import MOST_BYTES, PASSWORD, Signer, sign, verify_signed
from nemoport.package.verify import verify
from nemoport.validate.gate_result import PASS, GateResult, artifact_sha256
from nemoport.validate.result_store import results_path, write_results

ROOT = Path(__file__).resolve().parent.parent
NEEDS_SIGNING = pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl to make keys with")


def make(build: Path, dist: Path, **options) -> Path:
    options = {"licence": "apache-2.0"} | options
    return package(build, dist, required_passes=lambda build, variant: [], **options)


def with_results(build: Path, folder: Path) -> Path:
    """A copy of a build of two variants, which have results."""
    shutil.copytree(build, folder)
    shutil.copytree(folder / "fp32", folder / "fp16")
    text = (folder / "fp16" / NAME).read_text()
    (folder / "fp16" / NAME).write_text(text.replace('"variant": "fp32"', '"variant": "fp16"'))
    for name in ("fp32", "fp16"):
        result = GateResult("wer", name, artifact_sha256(folder / name), PASS, "all", 0.0, 0.3, "WER points", 9)
        write_results(results_path(folder, name), [result])
    return folder


@pytest.fixture(scope="module")
def judged(build, tmp_path_factory):
    return with_results(build, tmp_path_factory.mktemp("judged") / "build")


@pytest.fixture(scope="module")
def packed(judged, tmp_path_factory):
    """A package of two variants; not to be changed."""
    return make(judged, tmp_path_factory.mktemp("packed") / "dist", base_model="someone/a-model@v1+1")


@pytest.fixture
def copied(packed, tmp_path):
    return shutil.copytree(packed, tmp_path / "copied")


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def reseal(folder: Path) -> None:
    """What whoever alters a file can do: the hashes anew, everywhere."""
    manifest = PackageManifest.read(folder)
    replace(manifest, files=hash_files(folder)).write(folder)


# SHA256SUMS


def test_sums_cover_every_file_but_itself(packed):
    listed = [line.split("  ", 1)[1] for line in (packed / SUMS).read_text().splitlines()]
    assert listed == sorted(set(contents(packed)) - {SUMS}) and NAME in listed and SBOM in listed
    if shutil.which("sha256sum"):
        done = subprocess.run(["sha256sum", "--strict", "-c", SUMS], cwd=packed, capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout.count(": OK") == len(listed), done.stderr


WRONG_SUMS = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_text(""),
    "a hash altered": lambda path: path.write_text(path.read_text().replace("a", "b", 1)),
    "a line taken off": lambda path: path.write_text("".join(path.read_text().splitlines(keepends=True)[1:])),
    "a line more": lambda path: path.write_text(path.read_text() + f"{'0' * 64}  more\n"),
    "a link": lambda path: (path.rename(path.parent.parent / "elsewhere"), path.symlink_to("../elsewhere")),
}


@pytest.mark.parametrize("name", WRONG_SUMS)
def test_wrong_sums_are_damage(copied, name):
    WRONG_SUMS[name](copied / SUMS)
    with pytest.raises(ArtifactError, match=SUMS):
        verify(copied)


def test_packages_made_before_have_neither(copied):
    (copied / SBOM).unlink()
    reseal(copied)
    assert len(verify(copied)) == 4  # sums of a package without an SBOM, which it has
    (copied / SUMS).unlink()
    assert len(verify(copied)) == 4


def test_one_variant_alone(copied):
    shutil.rmtree(copied / "fp16")
    assert verify(copied, ["fp32"])[-1].startswith("fp32: loads")
    with pytest.raises(ArtifactError, match="fp16/encoder_model.onnx: missing"):
        verify(copied)


# Bills of materials


def check_schema(text: str) -> object:
    """None, or what the official schema of CycloneDX 1.6 says against it."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)


def test_sbom_of_a_package(packed):
    text = (packed / SBOM).read_text()
    assert check_schema(text) is None
    assert check_schema(text.replace("SHA-256", "SHA-257", 1)) is not None
    found, manifest = json.loads(text), PackageManifest.read(packed)
    files = {one["name"]: one["hashes"][0]["content"] for one in found["components"]}
    assert files == {entry.path: entry.sha256 for entry in manifest.files if entry.path != SBOM}
    variant = json.loads((packed / "fp32" / NAME).read_text())
    tools = {one["name"]: one["version"] for one in found["metadata"]["tools"]["components"]}
    assert tools == variant["tools"] and {"nemoport", "torch", "onnx"} <= set(tools)
    assert all("+" not in one["purl"] for one in found["metadata"]["tools"]["components"])
    (checkpoint,) = found["metadata"]["component"]["pedigree"]["ancestors"]
    assert checkpoint["hashes"] == [{"alg": "SHA-256", "content": variant["checkpoint_sha256"]}]
    assert checkpoint["licenses"][0]["license"]["id"] == "Apache-2.0"
    assert checkpoint["pedigree"]["ancestors"][0]["purl"] == "pkg:huggingface/someone/a-model@v1%2B1"


def test_sbom_of_an_unknown_licence(judged, tmp_path):
    dist = make(judged, tmp_path / "dist", licence="open", licence_url="https://example.org/l")
    assert check_schema((dist / SBOM).read_text()) is None
    licence = json.loads((dist / SBOM).read_text())["metadata"]["component"]["licenses"][0]["license"]
    assert licence == {"name": "open", "url": "https://example.org/l"}


def test_same_inputs_give_the_same_bytes(judged, tmp_path):
    first, second = make(judged, tmp_path / "a"), make(judged, tmp_path / "b")
    assert contents(first) == contents(second)
    assert not re.search("timestamp|serialNumber", (first / SBOM).read_text())


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """The wheel, built twice from copies of the sources."""
    made = []
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    for name in ("first", "second"):
        source, out = tmp_path_factory.mktemp(name), tmp_path_factory.mktemp("wheel")
        for file in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / file, source)
        ignored = shutil.ignore_patterns("__pycache__", "audio", "checkpoints", "text")
        for folder in ("nemoport", "export", "quantize", "distill", "calibration", "validate", "package", "reference", "web"):
            shutil.copytree(ROOT / folder, source / folder, ignore=ignored)
        options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
        subprocess.run([sys.executable, "-m", "pip", "wheel", *options, "-w", out, source], check=True, env=environment)
        made.append(next(out.glob("*.whl")))
    return made


def test_the_wheel_has_the_page_of_the_browser(wheels):
    page = ROOT / "web" / "page"
    expected = {f"nemoport/web/page/{path.relative_to(page).as_posix()}" for path in page.rglob("*") if path.is_file()}
    with zipfile.ZipFile(wheels[0]) as wheel:
        assert expected | {"nemoport/web/package-lock.json"} <= set(wheel.namelist())


def test_sbom_of_the_wheel(wheels):
    with zipfile.ZipFile(wheels[0]) as wheel:
        (path,) = [name for name in wheel.namelist() if "/sboms/" in name]
        text = wheel.read(path).decode()
        (record,) = [name for name in wheel.namelist() if name.endswith("/RECORD")]
        assert path in wheel.read(record).decode()
    assert re.fullmatch(r"nemoport-[\d.]+\.dist-info/sboms/nemoport\.cdx\.json", path)  # where PEP 770 places it
    assert check_schema(text) is None
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = json.loads(text)
    needed = {one["properties"][0]["value"] for one in found["components"] if one["scope"] == "required"}
    assert needed == set(project["dependencies"])
    assert {"torch", "model-signing"} <= {one["name"] for one in found["components"] if one["scope"] == "optional"}
    assert found["metadata"]["component"]["version"] == project["version"]
    assert wheels[0].read_bytes() == wheels[1].read_bytes()


# Signatures


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """key.pem and public.pem; other.pem and other-public.pem."""
    pytest.importorskip("model_signing")
    folder = tmp_path_factory.mktemp("keys")
    for private, public in (("key", "public"), ("other", "other-public")):
        run = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{private}.pem"]
        subprocess.run(run, cwd=folder, check=True, capture_output=True)
        run = ["openssl", "ec", "-in", f"{private}.pem", "-pubout", "-out", f"{public}.pem"]
        subprocess.run(run, cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def signed(packed, keys, tmp_path_factory):
    """A signed package; not to be changed."""
    folder = shutil.copytree(packed, tmp_path_factory.mktemp("signed") / "dist")
    assert main(["sign", str(folder), "--key", str(keys / "key.pem")]) == 0
    return folder


@pytest.fixture
def stolen(signed, tmp_path):
    return shutil.copytree(signed, tmp_path / "stolen")


def refused(folder: Path, keys: Path, key: str = "public.pem") -> bool:
    """Whether `verify --signature` refuses: by the error that a user sees, not by a fault."""
    try:
        verify_signed(folder, Signer(keys / key))
    except ArtifactError as error:
        return bool(error.what and error.expected and error.found and error.todo)
    return False


@NEEDS_SIGNING
def test_a_signature_proves_its_signer(signed, packed, keys, capsys):
    command = ["verify", str(signed), "--signature", "--key"]
    assert main([*command, str(keys / "public.pem")]) == 0
    assert capsys.readouterr().out.startswith("model.sig: signed with the key")
    assert main([*command, str(keys / "other-public.pem")]) == 2
    assert "does not prove the package" in capsys.readouterr().err
    signature = {SIGNATURE: (signed / SIGNATURE).read_bytes()}
    assert contents(signed) == contents(packed) | signature  # it altered nothing
    assert verify(signed) == verify(packed)


@NEEDS_SIGNING
def test_the_reference_tool_accepts_it(signed, keys, tmp_path):
    import model_signing

    folder = shutil.copytree(signed, tmp_path / "downloaded")
    (folder / ".cache" / "huggingface").mkdir(parents=True)  # as the Hub's client leaves it
    (folder / ".cache" / "huggingface" / ".gitignore").write_text("*")
    (folder / ".gitattributes").write_text("*.data filter=lfs diff=lfs merge=lfs -text\n")
    config = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=keys / "public.pem")
    config.verify(folder, folder / SIGNATURE)
    assert not refused(folder, keys)
    (folder / "LICENSE").write_text("mine")
    with pytest.raises(ValueError, match="LICENSE"):
        config.verify(folder, folder / SIGNATURE)


@NEEDS_SIGNING
def test_one_signed_variant_alone(stolen, keys):
    shutil.rmtree(stolen / "fp16")
    assert verify_signed(stolen, Signer(keys / "public.pem"), ["fp32"])[-1].startswith("fp32: loads")
    assert refused(stolen, keys)


@NEEDS_SIGNING
@pytest.mark.parametrize("flips", [60, pytest.param(2000, marks=pytest.mark.slow)])
def test_no_flipped_bit_gets_through(stolen, keys, flips):
    """Of any file that is signed."""
    draw = random.Random(0)
    paths = sorted(path for path in contents(stolen) if path != SIGNATURE)
    through = []
    for path in (paths[i % len(paths)] for i in range(flips)):
        before = (stolen / path).read_bytes()
        changed = bytearray(before)
        changed[draw.randrange(len(before))] ^= 1 << draw.randrange(8)
        (stolen / path).write_bytes(changed)
        if not refused(stolen, keys):
            through.append(path)
        (stolen / path).write_bytes(before)
    assert through == [] and not refused(stolen, keys)


@NEEDS_SIGNING
def test_no_file_taken_or_added_gets_through(stolen, keys):
    for path in sorted(contents(stolen)):
        content = (stolen / path).read_bytes()
        (stolen / path).unlink()
        assert refused(stolen, keys), f"without {path}"
        (stolen / path).write_bytes(content)
    for path in (
        "more",
        ".hidden",
        "fp32/more.onnx",
        "shared/model.sig",
        "fp32/SHA256SUMS",
        ".github/a",
        ".gitignore",
        "fp32/.git/x",
    ):
        made = not (stolen / path).parent.exists()
        (stolen / path).parent.mkdir(exist_ok=True)
        (stolen / path).write_text("x")
        assert refused(stolen, keys), f"with {path}"
        (stolen / path).unlink()
        if made:
            (stolen / path).parent.rmdir()
    assert not refused(stolen, keys)


def edit_payload(folder: Path, change) -> None:
    bundle = json.loads((folder / SIGNATURE).read_text())
    payload = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    change(payload)
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
    (folder / SIGNATURE).write_text(json.dumps(bundle))


def signature_of_another(folder: Path, keys: Path) -> None:
    other = shutil.copytree(folder, folder.parent / "other")
    (other / "LICENSE").write_text("another")
    reseal(other)
    sign(other, keys / "key.pem")
    shutil.copy(other / SIGNATURE, folder / SIGNATURE)


FORGERIES = {
    "no signature": lambda f, k: (f / SIGNATURE).unlink(),
    "empty": lambda f, k: (f / SIGNATURE).write_text(""),
    "not JSON": lambda f, k: (f / SIGNATURE).write_bytes(b"\xff\x00"),
    "an empty object": lambda f, k: (f / SIGNATURE).write_text("{}"),
    "deep": lambda f, k: (f / SIGNATURE).write_text("[" * 100_000),
    "cut short": lambda f, k: os.truncate(f / SIGNATURE, 1000),
    "a link": lambda f, k: ((f / SIGNATURE).rename(f.parent / "sig"), (f / SIGNATURE).symlink_to("../sig")),
    "a folder": lambda f, k: ((f / SIGNATURE).unlink(), (f / SIGNATURE).mkdir()),
    "of another key": lambda f, k: sign(f, k / "other.pem"),
    "of another package": signature_of_another,
    "a file taken off its list": lambda f, k: edit_payload(f, lambda p: p["predicate"]["resources"].pop()),
    "files to ignore": lambda f, k: edit_payload(f, lambda p: p["predicate"]["serialization"]["ignore_paths"].append("fp32")),
    "every hash made anew": lambda f, k: ((f / "LICENSE").write_text("mine"), reseal(f)),
    "a file added and listed": lambda f, k: ((f / "more").write_text("x"), reseal(f)),
    "a file taken off every list": lambda f, k: ((f / "shared/tokens.txt").unlink(), reseal(f)),
    "no SHA256SUMS nor SBOM": lambda f, k: ((f / SBOM).unlink(), reseal(f), (f / SUMS).unlink()),
}


@NEEDS_SIGNING
@pytest.mark.parametrize("name", FORGERIES)
def test_forgery_is_refused(stolen, keys, name):
    FORGERIES[name](stolen, keys)
    assert refused(stolen, keys)


@NEEDS_SIGNING
def test_a_large_signature_is_not_read(stolen, keys):
    os.truncate(stolen / SIGNATURE, MOST_BYTES + 1)
    with pytest.raises(ArtifactError, match="is not signed"):
        verify_signed(stolen, Signer(keys / "public.pem"))


@NEEDS_SIGNING
def test_what_verify_shows_without_a_signature(stolen, keys):
    """That nobody damaged the package, and not that nobody altered it: docs/signatures.md says so."""
    FORGERIES["every hash made anew"](stolen, keys)
    assert verify(stolen) and refused(stolen, keys)


@NEEDS_SIGNING
def test_damaged_packages_are_not_signed(copied, keys):
    (copied / "LICENSE").write_text("mine")
    with pytest.raises(ArtifactError, match="damaged"):
        sign(copied, keys / "key.pem")
    assert not (copied / SIGNATURE).exists()


@NEEDS_SIGNING
def test_keys_that_cannot_sign(copied, keys, monkeypatch):
    encrypted = ["openssl", "ec", "-in", "key.pem", "-aes256", "-passout", "pass:secret", "-out", "encrypted.pem"]
    subprocess.run(encrypted, cwd=keys, check=True, capture_output=True)
    subprocess.run(["openssl", "genrsa", "-out", "rsa.pem", "2048"], cwd=keys, check=True, capture_output=True)
    for name in ("public.pem", "rsa.pem", "encrypted.pem", "absent.pem"):
        with pytest.raises(UsageError, match="not a private key"):
            sign(copied, keys / name)
    for name in ("key.pem", "rsa.pem", "absent.pem"):
        (copied / SIGNATURE).write_text("{}")
        with pytest.raises(UsageError, match="not a public key"):
            verify_signed(copied, Signer(keys / name))
    monkeypatch.setenv(PASSWORD, "secret")
    sign(copied, keys / "encrypted.pem")
    assert not refused(copied, keys)


@NEEDS_SIGNING
def test_keyless_without_a_network(signed, copied, keys, monkeypatch, tmp_path, capfd):
    def unreachable(*_, **__):
        raise OSError("Network is unreachable")

    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, unreachable)
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):  # where Sigstore keeps what it fetched once
        monkeypatch.setenv(name, str(tmp_path / "home"))
    by = ["--identity", "someone@example.org", "--issuer", "https://example.org"]
    for command in (["sign", str(copied), "--keyless"], ["verify", str(signed), "--signature", *by]):
        assert main(command) == 2
        error = capfd.readouterr().err
        assert "a network to Sigstore" in error and "Traceback" not in error and error.count("nemoport: ") == 1
    assert contents(copied).keys() == contents(signed).keys() - {SIGNATURE}


UNCLEAR = {
    "sign, nobody": ["sign"],
    "sign, twice": ["sign", "--key", "key.pem", "--keyless"],
    "verify, nobody": ["verify", "--signature"],
    "verify, twice": ["verify", "--signature", "--key", "public.pem", "--identity", "a@b", "--issuer", "c"],
    "verify, half": ["verify", "--identity", "a@b"],
    "verify, an empty variable of a script": ["verify", "--issuer", ""],
}


@pytest.mark.parametrize("name", UNCLEAR)
def test_the_signer_is_never_guessed(packed, name, capsys):
    verb, *options = UNCLEAR[name]
    assert main([verb, str(packed), *options]) == 2
    assert "It is not clear" in capsys.readouterr().err


def test_without_the_package_that_signs(copied, monkeypatch):
    (copied / SIGNATURE).write_text("{}")
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(UsageError, match=re.escape("nemoport[signing]")):
        verify_signed(copied, Signer(Path("public.pem")))


@NEEDS_SIGNING
def test_the_same_package_again_keeps_its_signature(judged, keys, tmp_path):
    dist = make(judged, tmp_path / "dist")
    sign(dist, keys / "key.pem")
    before = contents(dist)
    assert contents(make(judged, dist)) == before and SIGNATURE in before


class Hub:
    """Stands for huggingface_hub.HfApi: a repository with the package in `folder`; takes what publish uploads."""

    def __init__(self, folder: Path):
        self._folder, self.upload = folder, {}

    def create_repo(self, *_, **__):
        pass

    def hf_hub_download(self, repo_id, name, **_):
        return str(self._folder / name)

    def upload_folder(self, **options):
        self.upload = options
        return "done"


@NEEDS_SIGNING
def test_publish_takes_the_signature_along(signed, packed):
    before, hub = contents(signed), Hub(packed)
    lines = publish(signed, "someone/model", token="hf_x", api=hub)
    assert contents(signed) == before
    assert sorted(hub.upload["allow_patterns"]) == sorted(before) and hub.upload["delete_patterns"] == []
    assert "Signature: model.sig, as it is; not checked here" in lines
    lines = publish(packed, "someone/model", token="hf_x", api=Hub(signed))
    assert "Signature: none; see `nemoport sign`" in lines


def test_publish_removes_the_signature_of_an_earlier_package(packed):
    hub = Hub(packed)
    publish(packed, "someone/model", token="hf_x", api=hub)
    assert hub.upload["delete_patterns"] == [SIGNATURE]


# Dependencies


def pins(path: Path) -> dict[str, str]:
    """Normal name -> version."""
    found = re.findall(r"^([\w.-]+)==([\w.+!]+)", path.read_text(), re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


LOCKS = {"requirements": "constraints", "requirements-litert": "constraints-litert"}


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_holds_every_dependency(lock):
    locked, wanted = pins(ROOT / f"{lock}.txt"), pins(ROOT / f"{LOCKS[lock]}.txt")
    unused = {"onnxconverter-common"} if lock == "requirements" else set()  # of constraints.txt, which nothing asks for now
    assert {name: locked.get(name) for name in wanted.keys() - unused} == {name: wanted[name] for name in wanted.keys() - unused}


@pytest.mark.parametrize("lock", [*LOCKS, "requirements-use"])
def test_locked_packages_have_hashes_and_no_address(lock):
    text, locked = (ROOT / f"{lock}.txt").read_text(), pins(ROOT / f"{lock}.txt")
    blocks = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(locked) > 10
    for block in blocks:
        assert re.fullmatch(r"[\w.-]+==[\w.+!]+( ; [^\\\n]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+\n", block), block[:80]
    assert not re.search(r"https?://|index|find-links", text.replace("httpx", ""), re.IGNORECASE)


def test_lock_for_use_is_a_part_of_the_whole():
    part, whole = pins(ROOT / "requirements-use.txt"), pins(ROOT / "requirements.txt")
    assert part.items() <= whole.items() and {"numpy", "onnxruntime", "soundfile", "soxr"} <= part.keys()
    assert not {"torch", "nemo-toolkit", "onnx"} & part.keys()


def test_lock_holds_what_pyproject_names():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    locked = pins(ROOT / "requirements.txt")
    for line in lines:
        name, version = re.match(r"([\w.-]+)(?:\[.*?\])?(?:==([\w.]+))?", line).groups()
        if name != "nemoport":
            found = locked[re.sub(r"[-_.]+", "-", name).lower()]
            assert version in (None, found), line


@pytest.mark.skipif((sys.platform, sys.version_info[:2]) != ("linux", (3, 11)), reason="the list is of Linux with Python 3.11")
def test_licences_are_the_installed_ones():
    script = runpy.run_path(str(ROOT / "docs" / "list_licences.py"))
    try:
        table = script["table"]()
    except PackageNotFoundError as error:
        pytest.skip(f"not installed: {error}")
    assert (ROOT / "docs" / "licences.md").read_text(encoding="utf-8") == table
    assert "not stated" not in table


CLEAN = {"name": "numpy", "version": "2", "vulns": []}
SKIPPED = {"name": "torch", "skip_reason": "not found"}
VULNERABLE = {"name": "lxml", "version": "6", "vulns": [{"id": "CVE-1"}]}
AUDITS = {
    "all known": ([CLEAN], 0, "1 packages, none"),
    "one vulnerable": ([CLEAN, VULNERABLE, SKIPPED], 1, "lxml 6: CVE-1"),
    "one not looked up": ([CLEAN, SKIPPED], 2, "1 of 2 packages could not be looked up"),
    "none": ([], 2, "0 of 0 packages"),
}


@pytest.mark.parametrize("name", AUDITS)
def test_audit(name):
    verdict = runpy.run_path(str(ROOT / ".ci" / "audit.py"))["verdict"]
    packages, code, text = AUDITS[name]
    found = verdict(json.dumps({"dependencies": packages}), "")
    assert found[0] == code and text in found[1]


def test_audit_without_the_service():
    verdict = runpy.run_path(str(ROOT / ".ci" / "audit.py"))["verdict"]
    code, text = verdict("", "Traceback (most recent call last):\n  ...\nrequests.exceptions.ConnectionError: no such host\n")
    assert code == 2 and text.count("\n") == 0 and "cannot be reached" in text and "ConnectionError" in text
