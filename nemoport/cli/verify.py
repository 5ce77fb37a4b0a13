"""`nemoport verify`: a package against its own manifest, or against golden data. Exit code 1: the frames differ."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from nemoport.cli.command import Command, grouped, option
from nemoport.cli.options import JSON, VARIANTS


def run(options: argparse.Namespace) -> int:
    if options.golden:
        from nemoport.package.verify_golden import verify_golden

        verdict = verify_golden(options.folder, options.golden, options.variants, options.progress)
        print(json.dumps(verdict.to_dict()) if options.json else "\n".join(verdict.lines()))
        return 0 if verdict else 1
    signer = (options.key, options.identity, options.issuer)
    if options.signature or signer != (None, None, None):
        from nemoport.package.signature import Signer, verify_signed

        lines = verify_signed(options.folder, Signer(*signer), options.variants, options.progress)
    else:
        from nemoport.package.verify import verify

        lines = verify(options.folder, options.variants, options.progress)
    print(json.dumps({"folder": str(options.folder), "passed": lines}) if options.json else "\n".join(lines))
    return 0


GOLDEN = option(
    "--golden",
    metavar="FILE",
    help="compare encoder frames with recorded ones of the real checkpoint: a path, an https address, or ORG/NAME@REVISION:PATH "
    "of the Hub; of a package, a build or a variant",
)
SIGNED_BY = grouped(
    "signatures",
    option("--signature", action="store_true", help="check the signature too, by one of the next options"),
    option("--key", type=Path, metavar="PEM", help="the publisher's public key"),
    option("--identity", help="who signed keyless: an e-mail address, or the address of a workflow"),
    option("--issuer", help="address of the OpenID provider that states the identity"),
)
COMMAND = Command(
    "verify",
    "check a package's files against its manifest, or its frames against recorded ones",
    (option("folder", type=Path), VARIANTS, GOLDEN, JSON, *SIGNED_BY),
    run,
    examples=(
        "nemoport verify dist/my",
        "nemoport verify dist/my --key publisher.pem",
        "nemoport verify build/my --golden recorded.npz",
    ),
)
