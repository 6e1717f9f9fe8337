"""The variables of each datum, as Python sees them and as what it starts or loads does."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from dmlpipe.worker.child.environment import datum_environment
from dmlpipe.worker.child.variables import DatumVariables

ONE, TWO, THREE = ("1" * 64, "2" * 64, "3" * 64)


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def of_the_process(name: str) -> str | None:
    """What the C library finds."""
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_char_p
    found: bytes | None = getenv(name.encode())
    return None if found is None else found.decode()


def seen(datum: str, attempt: int) -> None:
    for name, text in datum_environment(datum, attempt).items():
        assert os.environ[name] == text
        assert of_the_process(name) == text


def test_python_and_c_see_each_datum() -> None:
    variables = DatumVariables()
    for datum, attempt in ((ONE, 1), (TWO, 1), (THREE, 2), (THREE, 3), (ONE, 1), (TWO, 1)):
        variables.set(datum, attempt)
        seen(datum, attempt)


def test_what_it_starts_sees_the_datum_at_hand() -> None:
    variables = DatumVariables()
    for datum in (ONE, TWO):
        variables.set(datum, 1)
        printed = subprocess.run(
            [sys.executable, "-c", "import os; print(os.environ['DMLPIPE_DATUM'])"], capture_output=True, check=True
        )
        assert printed.stdout.decode().strip() == datum


def _set() -> None:
    os.environ["DMLPIPE_DATUM"] = "mine"


def _remove() -> None:
    del os.environ["PACH_DATUM_ID"]


def _retry() -> None:
    os.environ["DMLPIPE_TRY"] = "7"


def _clear() -> None:
    os.environ.clear()


@pytest.mark.parametrize("spoil", [_set, _remove, _retry, _clear])
def test_what_user_code_did_to_them_ends_with_its_datum(spoil: Callable[[], None]) -> None:
    variables = DatumVariables()
    variables.set(ONE, 1)
    variables.set(TWO, 1)
    spoil()
    variables.set(THREE, 1)
    seen(THREE, 1)
    variables.set(ONE, 1)
    seen(ONE, 1)
