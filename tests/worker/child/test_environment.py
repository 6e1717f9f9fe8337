from __future__ import annotations

import pytest

from dmlpipe.worker.child.environment import clean_environment


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
