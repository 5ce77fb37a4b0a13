"""`nemoport sign`: a signature over a package."""

from __future__ import annotations

import argparse
from pathlib import Path

from nemoport.cli.command import Command, option
from nemoport.errors import UsageError


def run(options: argparse.Namespace) -> None:
    from nemoport.package.signature import sign

    if (options.key is None) != options.keyless:
        raise UsageError(
            "It is not clear how to sign.",
            expected="either --key or --keyless",
            found="both" if options.keyless else "neither",
            todo="name a private key, or log in with Sigstore",
        )
    for line in sign(options.folder, options.key):
        print(line)


COMMAND = Command(
    "sign",
    "sign a package, so that others can check who made it",
    (
        option("folder", type=Path),
        option("--key", type=Path, metavar="PEM", help="elliptic private key; NEMOPORT_KEY_PASSWORD decrypts it"),
        option("--keyless", action="store_true", help="by Sigstore: an OpenID login, or the identity of a CI job"),
    ),
    run,
    examples=("nemoport sign dist/my --key private.pem", "nemoport sign dist/my --keyless"),
    extras="signing",
)
