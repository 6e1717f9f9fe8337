"""`/tmp` of commands: what one datum leaves there, no other one sees, on this slot, another, or the host."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmlpipe.storage.objects.segment import Outcome
from tests.worker.bench import Bench, command, file_datums, put, spec, varying
from tests.worker.child.test_commands import batching

NAME = f"dmlpipe-test-{uuid.uuid4().hex}"
LISTED = f"ls -A /tmp | grep {NAME} || true"


@pytest.fixture
def host() -> Iterator[Path]:
    """A folder in the host's `/tmp`."""
    path = Path("/tmp") / f"host-{NAME}"
    path.mkdir()
    (path / "given").write_text("the host's\n")
    yield path
    for each in path.iterdir():
        each.unlink()
    path.rmdir()


def test_what_a_datum_leaves_no_other_one_finds(bench: Bench) -> None:
    lines = [
        f"mkdir /tmp/{NAME}; echo mine > /tmp/{NAME}/kept; echo more > /tmp/{NAME}-file",
        f"ln -s /etc/hosts /tmp/{NAME}-link; mkfifo /tmp/{NAME}-pipe; chmod 0 /tmp/{NAME}",
    ]
    tree = put(bench.store, "in", dict.fromkeys("abc", b""))
    job = spec(command("; ".join([f"{LISTED} > $out/$(basename $in)", *lines])), varying("in", tree))
    rows = bench.run(job, file_datums(tree))
    assert {row.outcome for row in rows.values()} == {Outcome.OK}, {row.failure for row in rows.values()}
    assert bench.content(job.job) == dict.fromkeys("abc", b"")
    # Neither does the next job of the slot, nor the host.
    after = spec(command(f"{LISTED} > $out/after; true"), varying("in", put(bench.store, "in", {"a": b""})))
    bench.run(after, file_datums(put(bench.store, "in", {"a": b""})))
    assert bench.content(after.job) == {"after": b""}
    assert [name for name in os.listdir("/tmp") if NAME in name] == []


def test_a_failed_datum_leaves_nothing_either(bench: Bench) -> None:
    tree = put(bench.store, "in", {"a": b"bad", "b": b"good"})
    line = f"{LISTED} > $out/$(basename $in); echo > /tmp/{NAME}; grep -q good $in"
    job = spec(command(line), varying("in", tree), tries=2)
    rows = bench.run(job, file_datums(tree))
    assert {name: row.outcome for name, row in rows.items()} == {"a": Outcome.FAILED, "b": Outcome.OK}
    assert bench.content(job.job) == {"b": b""}


def test_of_the_hosts_only_what_declared_variables_name_is_seen_and_it_is_not_removed(bench: Bench, host: Path) -> None:
    tree = put(bench.store, "in", {"a": b"", "b": b""})
    line = "cat $HOST/given > $out/$(basename $in); echo x > $HOST/said-$(basename $in)"
    job = spec(command(line, env={"HOST": str(host)}), varying("in", tree))
    bench.run(job, file_datums(tree))
    assert bench.content(job.job) == dict.fromkeys("ab", b"the host's\n")
    assert sorted(path.name for path in host.iterdir()) == ["given", "said-a", "said-b"]


def test_a_script_that_a_word_of_the_command_names_is_seen(bench: Bench, host: Path) -> None:
    (host / "script").write_text("cat $in > $out/$(basename $in)")
    tree = put(bench.store, "in", {"a": b"1", "b": b"2"})
    job = spec(command("sh", str(host / "script")), varying("in", tree))
    bench.run(job, file_datums(tree))
    assert bench.content(job.job) == {"a": b"1", "b": b"2"}


def test_what_the_host_happens_to_have_there_is_not_in_the_way(bench: Bench, host: Path) -> None:
    tree = put(bench.store, "in", {"a": b""})
    line = f"mkdir {host}; echo mine > {host}/given; cat {host}/given > $out/x"
    job = spec(command(line), varying("in", tree))
    (row,) = bench.run(job, file_datums(tree)).values()
    assert row.failure is None, bench.log(row, job.job)
    assert bench.content(job.job) == {"x": b"mine\n"}
    assert (host / "given").read_text() == "the host's\n"


def test_a_link_from_out_to_a_file_there_is_its_content(bench: Bench) -> None:
    tree = put(bench.store, "in", {"a": b"", "b": b""})
    line = f"date +%N > /tmp/{NAME}; echo $(basename $in) > /tmp/{NAME}; ln -s /tmp/{NAME} $out/$(basename $in)"
    job = spec(command(line), varying("in", tree))
    bench.run(job, file_datums(tree))
    assert bench.content(job.job) == {"a": b"a\n", "b": b"b\n"}


def test_a_process_that_asks_for_the_next_datum_keeps_its_own_files(bench: Bench) -> None:
    line = f"""
    echo begun > /tmp/{NAME}
    while dmlpipe next datum; do
        set -a; . /pfs/.env; set +a
        cat /tmp/{NAME} > $out/$(basename $in)
    done
    """
    job, rows = batching(bench, {"a": b"", "b": b""}, line)
    assert {row.outcome for row in rows.values()} == {Outcome.OK}
    assert bench.content(job.job) == dict.fromkeys("ab", b"begun\n")
    after = spec(command(f"{LISTED} > $out/after; true"), varying("in", put(bench.store, "in", {"a": b""})))
    bench.run(after, file_datums(put(bench.store, "in", {"a": b""})))
    assert bench.content(after.job) == {"after": b""}


def test_a_secret_may_be_placed_there(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = bench.folder / "home" / ".config/dmlpipe/secrets/db"
    folder.mkdir(parents=True)
    (folder / "uri").write_text("db://x")
    (folder / "uri").chmod(0o600)
    monkeypatch.setenv("HOME", str(bench.folder / "home"))
    tree = put(bench.store, "in", {"a": b"", "b": b""})
    job = spec(
        command(f"cat /tmp/{NAME}/uri > $out/$(basename $in); true"), varying("in", tree), secrets=(f"/tmp/{NAME}=db",)
    )
    rows = bench.run(job, file_datums(tree))
    assert {row.outcome for row in rows.values()} == {Outcome.OK}, {row.failure for row in rows.values()}
    assert bench.content(job.job) == dict.fromkeys("ab", b"db://x")
    after = spec(command(f"{LISTED} > $out/after; true"), varying("in", put(bench.store, "in", {"a": b""})))
    bench.run(after, file_datums(put(bench.store, "in", {"a": b""})))
    assert bench.content(after.job) == {"after": b""}


def test_a_slot_removes_its_folder_with_its_child(bench: Bench) -> None:
    tree = put(bench.store, "in", {"a": b""})
    job = spec(command(f"echo > /tmp/{NAME}; true"), varying("in", tree))
    bench.run(job, file_datums(tree))
    assert not list(bench.folder.rglob("*.tmp"))
