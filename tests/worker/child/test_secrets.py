from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from dmlpipe.storage.errors import ErrorCode, InvalidInputError
from dmlpipe.worker.child.secrets import Given, counted, parse_secret, read_secrets, redact


def private(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)


def test_secrets_come_from_variables_or_private_files(tmp_path: Path) -> None:
    private(tmp_path / "FILE", "in file\n")
    assert read_secrets(("VAR", "FILE"), {"VAR": "v"}, tmp_path).variables == {"VAR": "v", "FILE": "in file"}
    (tmp_path / "FILE").chmod(0o644)
    with pytest.raises(InvalidInputError, match="others may read") as error:
        read_secrets(("FILE",), {}, tmp_path)
    assert error.value.code is ErrorCode.PERMISSION
    assert "in file" not in str(error.value)
    with pytest.raises(InvalidInputError, match="secret 'NONE' is not there"):
        read_secrets(("NONE",), {}, tmp_path)


def test_a_named_secret_is_a_folder_of_values(tmp_path: Path) -> None:
    private(tmp_path / "api" / "token", "t0ken\n")
    private(tmp_path / "api" / "user", "ada")
    given = read_secrets(("TOKEN=api/token", "/run/api=api", "/run/one=api/user"), {}, tmp_path)
    assert given.variables == {"TOKEN": "t0ken"}
    assert given.files == {"/run/api/token": "t0ken", "/run/api/user": "ada", "/run/one/user": "ada"}
    assert read_secrets(("TOKEN=api/token",), {"TOKEN": "mine"}, tmp_path).variables == {"TOKEN": "mine"}
    for missing in ("/run/x=none", "/run/x=api/none", "X=api/none"):
        with pytest.raises(InvalidInputError, match="is not there"):
            read_secrets((missing,), {}, tmp_path)


def test_the_keyring_is_asked_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keyring, errors = types.ModuleType("keyring"), types.ModuleType("keyring.errors")
    known = {("dmlpipe/api", "token"): "from keyring", ("dmlpipe", "HF_TOKEN"): "hf"}
    keyring.get_password = lambda service, key: known.get((service, key))  # type: ignore[attr-defined]  # a fake
    errors.KeyringError = OSError  # type: ignore[attr-defined]  # a fake
    monkeypatch.setitem(sys.modules, "keyring", keyring)
    monkeypatch.setitem(sys.modules, "keyring.errors", errors)
    given = read_secrets(("TOKEN=api/token", "HF_TOKEN", "/run/a=api/token"), {}, tmp_path)
    assert given == Given({"TOKEN": "from keyring", "HF_TOKEN": "hf"}, {"/run/a/token": "from keyring"})


@pytest.mark.parametrize(
    "text", ["", "a b", "A=", "A=x", "A=x/../y", "A=x/y/z", "/=x", "/run/a", "/run/../a=x", "run/a=x", "/run/a=/x"]
)
def test_what_declares_no_secret_is_refused(text: str) -> None:
    if text == "A=":
        assert str(parse_secret(text)) == "A"
        return
    with pytest.raises(InvalidInputError, match="declares no secret"):
        parse_secret(text)


def test_where_a_value_comes_from_does_not_count() -> None:
    assert [counted(text) for text in ("A", "A=x/y", "/run/a=x")] == ["A", "A", "/run/a"]


def test_secrets_are_struck_from_logs() -> None:
    given = Given({"T": "abcd1234", "SHORT": "t", "LONGER": "abcd1234-5"}, {"/run/k": "line\n"})
    assert redact(b"token abcd1234! abcd1234-5 line", given) == b"token ***! *** ***"
