"""Commands with all that a specification can ask for, with real child processes."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from dmlpipe.storage.errors import InvalidInputError
from dmlpipe.storage.objects.segment import Outcome, Row
from dmlpipe.worker.child.batching import ask_next
from dmlpipe.worker.job import CommandTransform, JobSpec
from tests.worker.bench import Bench, code_tree, command, constant, file_datums, put, spec, varying

Restart = Callable[[], None]

LOOP = """
echo started; args=
while dmlpipe next datum $args; do
    args=
    set -a; . /pfs/.env; set +a
    echo "$(cat $in)" > $out/$(basename $in)
    echo "did $in as $PACH_DATUM_ID"
    case $(cat $in) in bad*) args="--error no-good";; esac
    case $(cat $in) in die*) exit 7;; esac
done
"""


def batching(
    bench: Bench, contents: dict[str, bytes], line: str = LOOP, **options: object
) -> tuple[JobSpec, dict[str, Row]]:
    tree = put(bench.store, "in", contents)
    job = spec(command(line, batching=True, **options), varying("in", tree))
    return job, bench.run(job, file_datums(tree))


def starts(bench: Bench, job: JobSpec, rows: dict[str, Row]) -> int:
    return sum(bench.log(row, job.job).count("started") > 0 for row in rows.values())


def test_one_process_does_all_datums(bench: Bench) -> None:
    job, rows = batching(bench, {name: name.encode() for name in "abcd"})
    assert {row.outcome for row in rows.values()} == {Outcome.OK}
    assert bench.content(job.job) == {name: name.encode() + b"\n" for name in "abcd"}
    logs = {name: bench.log(row, job.job) for name, row in rows.items()}
    assert sum("started" in log for log in logs.values()) == 1
    # What it printed belongs to the datum that it had.
    for name, row in rows.items():
        assert f"did /pfs/in/{name} as {row.fingerprint.hex()}" in logs[name]


def test_an_error_it_reports_fails_that_datum_alone(bench: Bench) -> None:
    job, rows = batching(bench, {"a": b"x", "b": b"bad", "c": b"y"})
    assert {name: row.outcome for name, row in rows.items()} == {"a": Outcome.OK, "b": Outcome.FAILED, "c": Outcome.OK}
    assert rows["b"].failure is not None
    assert rows["b"].failure.message == "no-good"
    assert starts(bench, job, rows) == 1


def test_a_process_that_ends_costs_its_datum_and_another_goes_on(bench: Bench) -> None:
    _, rows = batching(bench, {"a": b"x", "b": b"die", "c": b"y"})
    assert {name: row.outcome for name, row in rows.items()} == {"a": Outcome.OK, "b": Outcome.FAILED, "c": Outcome.OK}
    assert rows["b"].failure is not None
    assert rows["b"].failure.message == "the command ended with exit code 7 before it asked for the next datum"
    _, never = batching(bench, {"z": b"x"}, line="echo x > $out/x; true")
    assert "exit code 0 before it asked" in str(never["z"].failure)


def test_err_cmd_recovers_what_it_reports(bench: Bench) -> None:
    _, rows = batching(bench, {"a": b"x", "b": b"bad"}, err_argv=("true",))
    assert {name: row.outcome for name, row in rows.items()} == {"a": Outcome.OK, "b": Outcome.RECOVERED}


def test_after_so_many_datums_a_new_process_is_started(bench: Bench) -> None:
    job, rows = batching(bench, dict.fromkeys("abcde", b"x"), batch=2)
    assert starts(bench, job, rows) == 3


def test_batching_without_a_namespace(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmlpipe.worker.slots.slot_child.tempfile.mkdtemp", lambda **_: "/no/such/root")
    job, rows = batching(bench, {name: name.encode() for name in "ab"})
    assert [row.failure for row in rows.values()] == [None, None]
    assert bench.content(job.job) == {"a": b"a\n", "b": b"b\n"}
    assert starts(bench, job, rows) == 1


def test_pachctl_and_python_ask_as_well(bench: Bench) -> None:
    loop = f"""
    {sys.executable} -c '
import os
from dmlpipe.worker.child.batching import ask_next
for _ in range(2):
    ask_next(os.environ["DMLPIPE_NEXT"])
    env = dict(line.split("=", 1) for line in open("/pfs/.env").read().splitlines())
    open("/pfs/out/" + os.path.basename(env["in"]), "w").write("python")
'
    while pachctl next datum; do . /pfs/.env; echo pachctl > $out/$(basename $in); done"""
    job, rows = batching(bench, dict.fromkeys("abc", b""), line=loop)
    # A process that ends after its last datum without asking fails it: the shell asks on its behalf.
    assert {row.outcome for row in rows.values()} == {Outcome.OK}
    assert sorted(bench.content(job.job).values()) == [b"pachctl\n", b"python", b"python"]


def test_there_is_no_next_datum_elsewhere(tmp_path: Path) -> None:
    for folder in ("", str(tmp_path)):
        with pytest.raises(InvalidInputError, match="no next datum"):
            ask_next(folder)


# --- secrets, users, the working directory ---


def test_secrets_are_files_that_nobody_else_reads_and_nothing_keeps(bench: Bench, tmp_path: Path) -> None:
    home = tmp_path / "home"
    secret = home / ".config/dmlpipe/secrets/api/token"
    secret.parent.mkdir(parents=True)
    secret.write_text("hunter2-hunter2\n")
    secret.chmod(0o600)
    bench.environ |= {"HOME": str(home)}
    os.environ["HOME"], before = str(home), os.environ.get("HOME", "")
    line = (
        "stat -c '%a %s' /run/no/such/token /etc/creds/token; cat /run/no/such/token; ls /etc/passwd;"
        " touch $out/x; echo to $TOKEN"
    )
    try:
        tree = put(bench.store, "in", {"a": b""})
        job = spec(
            command(line),
            varying("in", tree),
            secrets=("/run/no/such=api", "/etc/creds=api/token", "TOKEN=api/token"),
        )
        (row,) = bench.run(job, file_datums(tree)).values()
    finally:
        os.environ["HOME"] = before
    assert row.failure is None, row.failure
    assert bench.log(row, job.job) == "600 15\n600 15\n***/etc/passwd\nto ***\n"
    assert not Path("/run/no").exists()
    assert not Path("/etc/creds").exists()
    kept = [path for path in bench.folder.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]
    assert kept == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_a_command_runs_as_the_user_it_names(bench: Bench) -> None:
    tree = put(bench.store, "in", {"a": b"content"})
    line = "id -u; cat $in > $out/copy; mktemp > /dev/null; echo x > here; stat -c %u $out/copy"
    job = spec(command(line, user="nobody"), varying("in", tree))
    (row,) = bench.run(job, file_datums(tree)).values()
    assert row.failure is None, row.failure
    nobody = "65534\n"
    assert bench.log(row, job.job) == nobody + nobody
    assert bench.content(job.job) == {"copy": b"content"}
    unknown = spec(command("true 1", user="nobody-of-that-name"), varying("in", tree))
    (row,) = bench.run(unknown, file_datums(tree)).values()
    assert "who does not exist where the worker runs" in str(row.failure)


def test_the_scripts_stand_in_the_working_directory_too(bench: Bench) -> None:
    tree = put(bench.store, "in", {"a": b""})
    code = code_tree(bench.store, {"run.sh": (b". lib/x.sh; say", 0o755), "lib/x.sh": (b"say() { echo said; }", 0o644)})
    job = spec(command("sh run.sh > $out/a; touch beside; ls", code=code), varying("in", tree))
    (row,) = bench.run(job, file_datums(tree)).values()
    assert bench.content(job.job) == {"a": b"said\n"}
    assert bench.log(row, job.job).split() == ["beside", "lib", "run.sh"]
    other = spec(command("ls > $out/a; true"), varying("in", tree))
    bench.run(other, file_datums(tree))
    assert b"run.sh" not in bench.content(other.job)["a"]


def test_links_in_out_are_followed(bench: Bench) -> None:
    tree = put(bench.store, "in", {"d/a": b"content", "d/b": b"other"})
    line = "ln -s $in $out/file; mkdir t; echo t > t/x; ln -s $PWD/t $out/folder; ln -s $(mktemp) $out/tmp"
    job = spec(command(line), varying("in", tree))
    rows = bench.run(job, file_datums(tree)[:1])
    assert [row.failure for row in rows.values()] == [None]
    assert bench.content(job.job) == {"file": b"content", "folder/x": b"t\n", "tmp": b""}


# --- containers ---

FAKE = """#!{python}
import json, os, re, subprocess, sys
words = sys.argv[1:]
with open("{calls}", "a") as file:
    seen = {{name: os.environ.get(name) for name in ("EXTRA", "in", "TOKEN")}}
    file.write(json.dumps([words, seen]) + "\\n")
if words[0] == "run":
    mounts = {{}}
    for flag, value in zip(words, words[1:]):
        if flag == "-v":
            source, target, mode = value.split(":")
            mounts[target] = source
    at = words.index("--entrypoint")
    argv = [words[at + 1], *words[at + 3:]]
    # Each place once: a folder that was put in may have one of these names in it.
    places = re.compile("|".join(re.escape(target) + "(?=/)" for target in sorted(mounts, key=len, reverse=True)))
    argv = [places.sub(lambda found: mounts[found[0]], word) for word in argv]
    sys.exit(subprocess.run(argv).returncode)
"""


def fake_program(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch, text: str = FAKE) -> Path:
    """A program that records how it was called, and runs the command with the mounts' real folders."""
    (folder / "bin").mkdir()
    program, calls = folder / "bin" / name, folder / "calls"
    program.write_text(text.format(python=sys.executable, calls=calls))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    return calls


@pytest.mark.parametrize("name", ["docker", "podman"])
def test_a_container_gets_mounts_variables_and_a_name(
    bench: Bench, restart: Restart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    calls = fake_program(tmp_path, name, monkeypatch)
    restart()
    tree, model = put(bench.store, "in", {"a": b"content"}), put(bench.store, "model", {"m": b"M"})
    code = code_tree(bench.store, {"c.txt": (b"code", 0o644)})
    transform = command(
        "sh",
        "-c",
        "cat /pfs/in/a /pfs/model/m /code/c.txt > /pfs/out/all",
        code=code,
        image="lab/seq:1",
        container=name,
        env={"EXTRA": "e e"},
    )
    bench.environ |= {"TOKEN": "s3cret-s3cret"}
    job = spec(transform, varying("in", tree), constant("model", model), secrets=("TOKEN",))
    rows = bench.run(job, file_datums(tree))
    assert [row.failure for row in rows.values()] == [None]
    assert bench.content(job.job) == {"all": b"contentMcode"}
    (words, env), *_ = [json.loads(line) for line in calls.read_text().splitlines()]
    assert words[:2] == ["run", "--rm"]
    assert words[-4:] == ["sh", "lab/seq:1", "-c", "cat /pfs/in/a /pfs/model/m /code/c.txt > /pfs/out/all"]
    mounted = {value.split(":")[1]: value.split(":")[2] for flag, value in itertools.pairwise(words) if flag == "-v"}
    assert mounted == {"/pfs": "ro", "/pfs/model": "ro", "/pfs/out": "rw", "/code": "ro"}
    assert words[words.index("-w") + 1] == "/code"
    named = {value for flag, value in itertools.pairwise(words) if flag == "--env"}
    assert {"EXTRA", "in", "TOKEN", "PACH_JOB_ID", "DMLPIPE_DATUM"} <= named
    assert not named & {"PATH", "HOME", "TMPDIR"}
    # Values are not among the words, which everybody may list.
    assert "s3cret" not in " ".join(words)
    assert (env["EXTRA"], env["in"], env["TOKEN"]) == ("e e", "/pfs/in/a", "s3cret-s3cret")


APPTAINER = """#!{python}
import json, os, re, subprocess, sys
words = sys.argv[1:]
with open("{calls}", "a") as file:
    passed = {{name: value for name, value in os.environ.items() if name.startswith("APPTAINERENV_")}}
    file.write(json.dumps([words, passed]) + "\\n")
binds = dict(value.split(":")[1::-1] for flag, value in zip(words, words[1:]) if flag == "--bind")
argv = words[words.index("docker://lab/seq:1") + 1 :]
places = re.compile("|".join(re.escape(target) + "(?=/)" for target in sorted(binds, key=len, reverse=True)))
argv = [places.sub(lambda found: binds[found[0]], word) for word in argv]
sys.exit(subprocess.run(argv).returncode)
"""


def test_apptainer_gets_binds_variables_and_an_image_of_a_registry(
    bench: Bench, restart: Restart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = fake_program(tmp_path, "apptainer", monkeypatch, APPTAINER)
    restart()
    tree, model = put(bench.store, "in", {"a": b"content"}), put(bench.store, "model", {"m": b"M"})
    line = "cat /pfs/in/a /pfs/model/m > /pfs/out/all"
    transform = command("sh", "-c", line, image="lab/seq:1", container="apptainer", env={"EXTRA": "e e"})
    bench.environ |= {"TOKEN": "s3cret-s3cret"}
    job = spec(transform, varying("in", tree), constant("model", model), secrets=("TOKEN",))
    rows = bench.run(job, file_datums(tree))
    assert [row.failure for row in rows.values()] == [None]
    assert bench.content(job.job) == {"all": b"contentM"}
    (words, variables), *more = [json.loads(text) for text in calls.read_text().splitlines()]
    assert not more
    assert words[:4] == ["exec", "--containall", "--no-home", "--writable-tmpfs"]
    assert words[-4:] == ["docker://lab/seq:1", "sh", "-c", line]
    binds = {value.split(":")[1]: value.split(":")[2] for flag, value in itertools.pairwise(words) if flag == "--bind"}
    assert binds == {"/pfs": "ro", "/pfs/model": "ro", "/pfs/out": "rw"}
    assert variables["APPTAINERENV_EXTRA"] == "e e"
    assert variables["APPTAINERENV_in"] == "/pfs/in/a"
    assert variables["APPTAINERENV_TOKEN"] == "s3cret-s3cret"
    assert "s3cret" not in " ".join(words)


def test_a_container_that_outlives_its_client_is_removed(
    bench: Bench, restart: Restart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = fake_program(tmp_path, "docker", monkeypatch)
    restart()
    tree = put(bench.store, "in", {"a": b""})
    transform = command("sleep", "1000", image="x", container="docker")
    (row,) = bench.run(spec(transform, varying("in", tree), timeout_s=0.5), file_datums(tree)).values()
    assert row.failure is not None
    assert row.failure.kind == "timeout"
    run, *others = [json.loads(line)[0] for line in calls.read_text().splitlines()]
    assert ["rm", "--force", run[run.index("--name") + 1]] in others


def test_no_container_program_is_an_error_that_says_so(
    bench: Bench, restart: Restart, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    restart()
    tree = put(bench.store, "in", {"a": b""})
    (row,) = bench.run(
        spec(command("true", image="x", container="auto"), varying("in", tree)), file_datums(tree)
    ).values()
    assert "there is no docker, podman or apptainer where the worker runs" in str(row.failure)


@pytest.fixture(scope="session")
def tiny_image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with a static busybox in it, for podman, where it can run here."""
    busybox = shutil.which("busybox")
    if not shutil.which("podman") or busybox is None:
        pytest.skip("podman or a static busybox is not installed")
    folder = tmp_path_factory.mktemp("image")
    conf = folder / "containers.conf"
    limits = '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]\nnetns = "host"\n'
    conf.write_text(limits + '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\n')
    with tarfile.open(folder / "image.tar", "w") as tar:
        tar.add(busybox, "bin/busybox")
        for name in ("sh", "cat", "id", "ln", "env", "tr", "dirname", "basename", "sed", "cp", "mkdir"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    os.environ["CONTAINERS_CONF"] = str(conf)
    image = "localhost/dmlpipe-tiny:1"
    for words in (["import", str(folder / "image.tar"), image], ["run", "--rm", image, "sh", "-c", "true"]):
        done = subprocess.run(["podman", *words], capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            pytest.skip(f"podman does not run here: {done.stderr.strip()[:200]}")
    return image


def test_a_real_container(bench: Bench, restart: Restart, tiny_image: str) -> None:
    restart()
    tree = put(bench.store, "in", {"d/a": b"content"})
    script = "cat $in > /pfs/out/copy; ln -s /pfs/in/d/a /pfs/out/link; cat; echo $EXTRA; test ! -e /usr/bin"
    transform = CommandTransform(
        argv=("sh", "-ec", script), stdin=("from stdin",), env={"EXTRA": "e e"}, image=tiny_image, container="podman"
    )
    job = spec(transform, varying("in", tree))
    (row,) = bench.run(job, file_datums(tree)).values()
    assert row.failure is None, (row.failure, bench.log(row, job.job))
    assert bench.content(job.job) == {"copy": b"content", "link": b"content"}
    assert bench.log(row, job.job) == "from stdin\ne e\n"


def test_one_container_serves_many_datums(bench: Bench, restart: Restart, tiny_image: str) -> None:
    restart()
    tree = put(bench.store, "in", {name: name.encode() for name in "abcd"} | {"bad": b"bad"})
    model = put(bench.store, "model", {"m": b"M"})
    script = """
        n=0
        while pachctl next datum ${error:+--error "$error"}; do
            n=$((n + 1)); error=
            . /pfs/.env
            case $in in */bad) error="no good"; continue ;; esac
            cat $in /pfs/model/m > /pfs/out/$(basename $in); echo " $n" >> /pfs/out/$(basename $in)
        done
    """
    transform = CommandTransform(argv=("sh", "-c", script), batching=True, image=tiny_image, container="podman")
    job = spec(transform, varying("in", tree), constant("model", model))
    rows = bench.run(job, file_datums(tree))
    logs = [(row.failure, bench.log(row, job.job)) for row in rows.values()]
    assert sorted(str(row.failure.message) for row in rows.values() if row.failure) == ["no good"], logs
    assert bench.content(job.job) == {"a": b"aM 1\n", "b": b"bM 2\n", "c": b"cM 4\n", "d": b"dM 5\n"}


@pytest.mark.slow
def test_a_batch_in_a_container_goes_on_with_a_new_one(bench: Bench, restart: Restart, tiny_image: str) -> None:
    restart()
    tree = put(bench.store, "in", dict.fromkeys("abcde", b"x"))
    line = "n=0; while pachctl next datum; do n=$((n + 1)); . /pfs/.env; echo $n > /pfs/out/$(basename $in); done"
    transform = CommandTransform(argv=("sh", "-c", line), batching=True, batch=2, image=tiny_image, container="podman")
    job = spec(transform, varying("in", tree))
    rows = bench.run(job, file_datums(tree))
    assert [row.failure for row in rows.values()] == [None] * 5
    assert sorted(bench.content(job.job).values()) == [b"1\n", b"1\n", b"1\n", b"2\n", b"2\n"]
