"""A package made on the spot, for environments that need one and no network."""

from __future__ import annotations

import zipfile
from pathlib import Path


def wheel(folder: Path) -> Path:
    """A package `tiny` with a program of that name."""
    path = folder / "tiny-1.0-py3-none-any.whl"
    files = {
        "tiny.py": "def main():\n    print('tiny 1.0')\n",
        "tiny-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        "tiny-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "tiny-1.0.dist-info/entry_points.txt": "[console_scripts]\ntiny = tiny:main\n",
        "tiny-1.0.dist-info/RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path
