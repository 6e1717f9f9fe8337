from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import click
import pytest

from dmlpipe.cli.command import Noun
from dmlpipe.cli.main import _OTHERS_WORDS, VERBS, Root, root

from .conftest import Cli

HEAVY = ("dask", "distributed", "zarr", "s3fs", "numpy", "pandas", "botocore", "PIL", "yaml", "rich")


def _modules_after(words: list[str], cwd: Path, cache: Path) -> tuple[int, set[str]]:
    code = (
        "import sys; from dmlpipe.cli.main import main; code = main(sys.argv[1:]);"
        "print('MODULES', *sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=cwd,
        env={"DMLPIPE_CACHE_DIR": str(cache), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    listed = next(line for line in done.stderr.splitlines() if line.startswith("MODULES "))
    return done.returncode, set(listed.split()[1:])


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["ls"], ["ls", "images"], ["cat", "images:/a.txt"], ["log", "images"]]
)
def test_looking_imports_nothing_heavy(words: list[str], store: Path, tmp_path: Path) -> None:
    code, modules = _modules_after(words, store.parent, tmp_path / "cache")
    assert code == 0
    assert not modules & set(HEAVY)


def test_a_store_is_opened_without_what_checks_it() -> None:
    code = (
        "import sys, dmlpipe.scheduler.store; print([m for m in sys.modules if m.startswith('dmlpipe.storage.fsck')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_help_imports_no_verb(store: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from dmlpipe.cli.main import main; main(['--help']);"
        "print([name for name in sys.modules if name.startswith(('dmlpipe.cli', 'dmlpipe.s', 'dmlpipe.w', 'msgspec'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert set(ast.literal_eval(done.stdout.splitlines()[-1])) == {
        "dmlpipe.cli",
        "dmlpipe.cli.app",
        "dmlpipe.cli.command",
        "dmlpipe.cli.failure",
        "dmlpipe.cli.main",
        "dmlpipe.cli.text",
        "dmlpipe.storage",
        "dmlpipe.storage.errors",
        "dmlpipe.storage.version",
    }


def test_every_group_of_help_has_ten_verbs_or_fewer() -> None:
    assert all(len(verbs) <= 10 for verbs in VERBS.values())


@pytest.mark.parametrize("name", [name for verbs in VERBS.values() for name in verbs])
def test_help_says_of_a_verb_what_the_verb_says_of_itself(name: str) -> None:
    command = root.get_command(click.Context(root), name)
    assert command is not None
    told = next(verbs[name] for verbs in VERBS.values() if name in verbs)
    assert command.get_short_help_str(200) == told
    if isinstance(command, Noun):
        assert f"{', '.join(command.commands)}." == told


def test_help_shows_the_groups_and_exit_codes(cli: Cli) -> None:
    answer = cli("--help")
    assert answer.code == 0
    for group in VERBS:
        assert f"\n{group}:\n" in answer.out
    assert "130 interrupted" in answer.out
    assert answer.out == cli().out == cli("-h").out


def test_global_options_stand_before_and_after_the_verb(cli: Cli, store: Path) -> None:
    before = cli("--json", "--store", store, "ls", "images")
    after = cli("ls", "images", "--json", "--store", store)
    assert before.out == after.out
    assert before.records[0]["path"] == "/a.txt"


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (("list", "repo"), ("repo", "list")),
        (("list", "file", "images@master"), ("ls", "images")),
        (("list", "commit", "images"), ("log", "images")),
        (("inspect", "repo", "images"), ("repo", "inspect", "images")),
        (("list", "job"), ("job", "list")),
        (("list", "branch", "images"), ("branch", "list", "images")),
    ],
)
def test_the_order_of_pachctl_works(theirs: tuple[str, ...], ours: tuple[str, ...], cli: Cli, store: Path) -> None:
    assert cli(*theirs) == cli(*ours)
    assert cli(*ours).code == 0


def test_aliases_are_hidden() -> None:
    assert isinstance(root, Root)
    assert "list" not in root.list_commands(click.Context(root))


def test_every_verb_has_a_help(cli: Cli) -> None:
    for verbs in VERBS.values():
        for name in verbs:
            answer = cli(name, "--help")
            assert answer.code == 0
            assert answer.out.startswith(f"Usage: dmlpipe {name}")


def test_a_reader_that_leaves_is_no_error(store: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{Path(sys.executable).with_name('dmlpipe')} cat images:/a.txt | true"],
        cwd=store.parent,
        env={"DMLPIPE_CACHE_DIR": str(tmp_path / "cache"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""


def test_the_manual_names_every_verb_in_its_group() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    for group, verbs in VERBS.items():
        assert f"| {group} | {' '.join(f'`{name}`' for name in verbs)} |" in manual


def test_words_of_other_tools_lead_to_verbs_that_exist(cli: Cli) -> None:
    for word, verb in _OTHERS_WORDS.items():
        assert word not in {name for group in VERBS.values() for name in group}
        assert f"did you mean {verb}?" in cli(word).err
        assert cli(*verb.split(), "--help").code == 0
