"""Which of a job's packages are worth a line: those that no other one brought along.

A job's record lists every package that its code loaded, the dependencies of dependencies included. What the code was
written against are the roots among them. Dependencies are looked up on this machine; a package that is not installed
here has none, so it is a root.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Set
from importlib import metadata

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def roots(packages: Iterable[str]) -> list[str]:
    """Return the packages that neither another one nor dmlpipe itself requires, sorted.

    >>> roots(["distributed", "dask", "toolz"])
    []
    >>> roots(["no-such-package", "dask"])
    ['no-such-package']
    """
    known = sorted(packages, key=str.lower)
    required = set(_required("dmlpipe"))
    for package in known:
        required |= _required(package) - {_normal(package)}
    # dmlpipe's own requirements bring theirs.
    required |= {name for own in _required("dmlpipe") for name in _required(own)}
    return [package for package in known if _normal(package) not in required]


def _required(package: str) -> Set[str]:
    try:
        lines = metadata.requires(package) or []
    except metadata.PackageNotFoundError:
        return frozenset()
    names = (_NAME.match(line) for line in lines if "extra ==" not in line)
    return frozenset(_normal(name[0]) for name in names if name is not None)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
