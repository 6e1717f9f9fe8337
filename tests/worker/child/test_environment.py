from __future__ import annotations

from pathlib import Path

import pytest

from dmlpipe.storage.errors import ErrorCode, InvalidInputError
from dmlpipe.worker.child.environment import clean_environment, read_secrets, redact


@pytest.mark.parametrize(
    "name",
    [
        "AWS_ACCESS_KEY_ID",
        "AZURE_STORAGE_KEY",
        "DASK_X__TLS__KEY",
        "DMLPIPE_STORE",
        "GITHUB_TOKEN",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "KUBECONFIG",
        "POSTGRES_PASSWORD",
        "SSH_AUTH_SOCK",
        "my_api_key",
    ],
)
def test_what_children_must_not_see_is_dropped(name: str) -> None:
    assert clean_environment({name: "x", "PATH": "p", "LANG": "C", "CUDA_VISIBLE_DEVICES": "0"}) == {
        "PATH": "p",
        "LANG": "C",
        "CUDA_VISIBLE_DEVICES": "0",
    }


def test_secrets_come_from_variables_or_private_files(tmp_path: Path) -> None:
    (tmp_path / "FILE").write_text("in file\n")
    (tmp_path / "FILE").chmod(0o600)
    assert read_secrets(("VAR", "FILE"), {"VAR": "v"}, tmp_path) == {"VAR": "v", "FILE": "in file"}
    (tmp_path / "FILE").chmod(0o644)
    with pytest.raises(InvalidInputError, match="others may read") as error:
        read_secrets(("FILE",), {}, tmp_path)
    assert error.value.code is ErrorCode.PERMISSION
    assert "in file" not in str(error.value)
    with pytest.raises(InvalidInputError, match="secret 'NONE' is not there"):
        read_secrets(("NONE",), {}, tmp_path)


def test_secrets_are_struck_from_logs() -> None:
    assert redact(b"token abcd1234!", {"T": "abcd1234", "SHORT": "t"}) == b"token ***!"
