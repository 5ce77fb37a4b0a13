"""`python -m nemoport.web FOLDER`: serves the page on this machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nemoport.errors import NemoportError
from nemoport.web.server import HOST, server
from nemoport.web.site import write_page

MANIFEST = "manifest.json"  # a package has one; its files are not written again


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    parser = argparse.ArgumentParser("python -m nemoport.web", description=__doc__)
    parser.add_argument("folder", type=Path, help="a package of the layout web; any other folder is given the page first")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--write-only", action="store_true", help="write the page and do not serve it")
    options = parser.parse_args(arguments)
    try:
        if not (options.folder / MANIFEST).is_file():
            options.folder.mkdir(parents=True, exist_ok=True)
            write_page(options.folder)
        if options.write_only:
            return 0
        serving = server(options.folder, options.port)
    except NemoportError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"http://{HOST}:{serving.server_port}/   (Ctrl-C ends it)", flush=True)
    try:
        serving.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        serving.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
