"""Which installed packages a job's modules belong to."""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from collections.abc import Collection, Iterable, Iterator

__all__ = ["third_party"]


def third_party(modules: Iterable[str]) -> dict[str, str]:
    """Versions of the installed packages that top-level modules belong to: distribution to version."""
    import importlib.metadata  # takes longer to import than all the rest here

    standard = sys.stdlib_module_names
    wanted = [name for name in modules if name not in standard and name != "dmlpipe" and not name.startswith("_")]
    found: dict[str, str] = {}
    missing = []
    for name in wanted:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing and any(_is_installed(name) for name in missing):
        found.update(_owners(missing))
    return found


def _owners(modules: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield name and version of each distribution that brings one of some top-level modules.

    Notes
    -----
    `importlib.metadata.packages_distributions` says the same of all modules, in ten times the time: it makes a path of
    each installed file.
    """
    import importlib.metadata

    names = "|".join(map(re.escape, modules))
    # A folder, or a module of any kind: `yaml/__init__.py`, `six.py`, `_cffi.cpython-311-x86_64-linux-gnu.so`.
    installed = re.compile(rf"^\"?(?:{names})(?:/|\.[^/\n]*,)", re.MULTILINE)
    declared = re.compile(rf"^(?:{names})$", re.MULTILINE)
    for distribution in importlib.metadata.distributions():
        if (tops := distribution.read_text("top_level.txt")) is not None:
            brings = declared.search(tops)
        else:
            brings = installed.search(distribution.read_text("RECORD") or "")
        if brings:
            yield distribution.name, distribution.version


def _is_installed(name: str) -> bool:
    folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    for folder in folders:
        for candidate in (f"{folder}/{name}", f"{folder}/{name}.py"):
            try:
                os.stat(candidate)
            except FileNotFoundError:
                continue
            return True
    return False
