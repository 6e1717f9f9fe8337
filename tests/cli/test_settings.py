from __future__ import annotations

import os
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from dmlpipe.cli.settings import cache_option, parse_parameters
from dmlpipe.storage.errors import InvalidInputError


def test_settings_come_after_the_file(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text("model: {C: 1, kernel: rbf}\nsweep: {n: 3}\n")
    assert parse_parameters(["model.C=0.5", "model.name=a=b", "other.flag=true"], file) == {
        "model": {"C": 0.5, "kernel": "rbf", "name": "a=b"},
        "sweep": {"n": 3},
        "other": {"flag": True},
    }


@pytest.mark.parametrize("setting", ["model.C", "C=0.5", "model.=1", ".C=1", "=", ""])
def test_a_setting_says_what_it_should_look_like(setting: str) -> None:
    with pytest.raises(InvalidInputError, match=r"expected PIPELINE\.NAME=VALUE"):
        parse_parameters([setting], None)


@pytest.mark.parametrize("text", ["[1, 2]", "model: 5", "{", "\x00"])
def test_a_parameter_file_is_a_mapping_of_mappings(text: str, tmp_path: Path) -> None:
    file = tmp_path / "params.json"
    file.write_text(text)
    with pytest.raises(InvalidInputError, match="--params"):
        parse_parameters([], file)


def test_the_cache_size_is_told_to_workers_by_their_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMLPIPE_CACHE_SIZE", "1GiB")

    @click.command()
    @cache_option
    def verb() -> None:
        click.echo(os.environ["DMLPIPE_CACHE_SIZE"])

    runner = CliRunner()
    assert runner.invoke(verb, ["--cache-size", "30%"]).output == "30%\n"
    wrong = runner.invoke(verb, ["--cache-size", "much"])
    assert wrong.exit_code == 2
    assert 'expected a size such as "512MiB" or "8GiB", got \'much\'' in wrong.output.replace("\n", " ")
