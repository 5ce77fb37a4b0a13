"""model.sig of a package: a signature in the format of the OpenSSF, over every file with its sha256.

The package model-signing makes and reads it, and its own command accepts the same folder. It is made over the hashes of
manifest.json, SHA256SUMS and the files that the manifest lists; `verify` holds the files to these hashes. Both together prove a
package, neither alone.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemoport.errors import ArtifactError, OutputError, UsageError, first_line
from nemoport.files import sha256_file, write_bytes
from nemoport.package.manifest import ATTRIBUTES, NAME, SIGNATURE, SUMS, PackageManifest
from nemoport.package.verify import verify
from nemoport.progress import Progress, silent
from nemoport.text import clipped

PASSWORD = "NEMOPORT_KEY_PASSWORD"  # of an encrypted private key; not an option, which other users of the machine can read
MOST_BYTES = 32 << 20  # of model.sig, which has about 250 for each file
# What stands beside the signed files; recorded in the signature for other tools that verify it.
IGNORED = (SIGNATURE, ATTRIBUTES, ".git", ".github", ".gitignore", ".cache")


@dataclass(frozen=True)
class Signer:
    """Who must have signed. key: file of an elliptic public key (PEM); or identity and issuer of a keyless signature: e-mail
    address or workflow, and the address of the OpenID provider that vouches for it."""

    key: Path | None = None
    identity: str | None = None
    issuer: str | None = None

    def __post_init__(self) -> None:
        keyless = (self.identity is not None, self.issuer is not None)
        if keyless != (self.key is None,) * 2:
            raise UsageError(
                "It is not clear who must have signed.",
                expected="--key with a public key, or --identity and --issuer",
                found=", ".join(f"--{name}" for name, value in vars(self).items() if value is not None) or "none of them",
                todo="name the signer; take the key or the identity from the publisher, not from the package",
            )


def sign(folder: Path, key: Path | None = None) -> list[str]:
    """Verifies the package, writes model.sig into it and returns a line for each thing done.

    key: file of an elliptic private key (PEM: P-256, P-384 or P-521); None: keyless, by Sigstore, which asks for an OpenID login
    or takes the one of a CI job. Raises ArtifactError (damaged package), UsageError (no such key), OutputError (Sigstore).
    """
    config = _module("signing").Config().set_hashing_config(_Hashes(folder))
    if key is not None:
        password = os.environ.get(PASSWORD, "").encode() or None
        _keyed(lambda: config.use_elliptic_key_signer(private_key=key, password=password), key, "private")
    checked = verify(folder)
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch, SIGNATURE)
        try:
            if key is None:
                config.use_sigstore_signer(use_ambient_credentials=True)
            config.sign(folder, made)
        except Exception as error:  # sigstore's errors, and those of the HTTP client below it, share no base
            raise OutputError(
                f"{folder} was not signed.",
                expected="a signature" if key else "a network to Sigstore, and a login",
                found=first_line(error),
                todo="check the key" if key else "sign with --key where there is no network",
            ) from error
        write_bytes(folder / SIGNATURE, made.read_bytes())
    return [*checked, f"{SIGNATURE}: signed {'keyless' if key is None else f'with {key}'}"]


def verify_signed(folder: Path, signer: Signer, variants: Sequence[str] | None = None, progress: Progress = silent) -> list[str]:
    """Checks that `signer` signed the package, then what `verify` checks; returns a line for each.

    Raises ArtifactError where there is no signature, or it is not of this package or not by `signer`; OutputError where Sigstore
    cannot be reached; and what `verify` raises.
    """
    path = folder / SIGNATURE
    if not path.is_file() or path.stat().st_size > MOST_BYTES:
        raise ArtifactError(
            f"{folder} is not signed.",
            expected=f"the signature {SIGNATURE}, a file of at most {MOST_BYTES} bytes",
            found="no such file" if not path.exists() else "something else",
            todo="ask its publisher, or verify it without --signature, which finds damage only",
        )
    config = _module("verifying").Config().set_hashing_config(_Hashes(folder))
    if signer.key is not None:
        _keyed(lambda: config.use_elliptic_key_verifier(public_key=signer.key), signer.key, "public")
        by = f"with the key {signer.key}"
    else:
        try:
            config.use_sigstore_verifier(identity=signer.identity, oidc_issuer=signer.issuer)
        except Exception as error:  # see `sign`
            raise OutputError(
                "The keys of Sigstore are not at hand.",
                expected="a network to Sigstore",
                found=first_line(error),
                todo="try again with a network",
            ) from error
        by = f"by {signer.identity}, as {signer.issuer} states"
    try:
        config.verify(folder, path)
    except Exception as error:  # ValueError, KeyError, InvalidSignature, those of protobuf and sigstore: the file is a stranger's
        raise ArtifactError(
            f"{path} does not prove the package.",
            expected=f"every file as it was signed {by}",
            found=clipped(f"{type(error).__name__}: {error}".strip(": "), 4000),
            todo="do not use the package; download it again, or ask its publisher",
        ) from error
    return [f"{SIGNATURE}: signed {by}", *verify(folder, variants, progress)]


class _Hashes:
    """Stands for model_signing.hashing.Config: the hashes that the package's manifest states, which `verify` compares."""

    def __init__(self, folder: Path):
        manifest = PackageManifest.read(folder)
        own = {name: sha256_file(folder / name) for name in (NAME, SUMS) if (folder / name).is_file()}
        self._name, self._hashes = manifest.name, {entry.path: entry.sha256 for entry in manifest.files} | own

    def hash(self, folder: Path, *, files_to_hash: None = None) -> Any:
        from model_signing._hashing.hashing import Digest  # public nowhere; the version is pinned
        from model_signing.manifest import Manifest, SerializationType

        arguments = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": IGNORED}
        files = SerializationType.from_args(arguments)
        items = [files.new_item(path, Digest("sha256", bytes.fromhex(sha256))) for path, sha256 in self._hashes.items()]
        return Manifest(self._name, items, files)

    def add_ignored_paths(self, *, model_path: Path, paths: Sequence[str]) -> None:
        """A signature that leaves out files of the package is none of it."""


def _module(name: str) -> Any:
    try:
        import model_signing
    except ImportError as error:
        raise UsageError(
            "Signatures need the package model-signing.",
            expected="model-signing and pyOpenSSL",
            found=str(error),
            todo="pip install 'nemoport[signing]'",
        ) from error
    return getattr(model_signing, name)


def _keyed(load: Callable[[], object], key: Path, kind: str) -> None:
    try:
        load()
    except Exception as error:  # ValueError, TypeError, AttributeError (no elliptic key), OSError, UnsupportedAlgorithm
        raise UsageError(
            f"{key} is not a {kind} key for signatures.",
            expected=f"a PEM file of an elliptic {kind} key: P-256, P-384 or P-521",
            found=first_line(error),
            todo=f"openssl ecparam -name prime256v1 -genkey -noout -out key.pem; an encrypted one takes {PASSWORD}"
            if kind == "private"
            else "openssl ec -in key.pem -pubout -out public.pem",
        ) from error
