"""Real child processes: what they compute, and how they die."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from dmlpipe.storage.errors import BackendError, CorruptError, ErrorCode
from dmlpipe.storage.objects.cache import ContentReader
from dmlpipe.storage.objects.segment import Outcome, Row
from dmlpipe.storage.objects.value import Value
from dmlpipe.worker.child.frames import GiveUp, socket_pair
from dmlpipe.worker.child.wire import Unit, from_child
from dmlpipe.worker.job import CommandTransform
from dmlpipe.worker.slots.devices import Devices
from dmlpipe.worker.slots.slot_child import Message, SlotChild
from tests.worker.bench import (
    Bench,
    ListSource,
    constant,
    datum,
    file_datums,
    file_item,
    parameter,
    put,
    python,
    spec,
    varying,
)

IMAGES = {f"{i}.png": f"image {i}".encode() for i in range(6)}


def test_a_function_gets_paths_and_returns_files(bench: Bench) -> None:
    tree = put(bench.store, "images", {**IMAGES, "deep/er/x.png": b"y" * 100_000})
    transform = python(
        bench.store,
        """
        def f(image):
            assert image.stat().st_mode & 0o222 == 0
            return {f"{image.name}.txt": image.read_bytes(), "len/" + image.name: str(image.stat().st_size)}
        """,
        "f",
        parameter("image"),
    )
    job = spec(transform, varying("image", tree))
    rows = bench.run(job, file_datums(tree), size=4)
    assert all(row.outcome is Outcome.OK and row.tries == 1 for row in rows.values())
    content = bench.content(job.job)
    assert content["3.png.txt"] == b"image 3"
    assert content["len/x.png"] == b"100000"
    assert content["x.png.txt"] == b"y" * 100_000


def test_every_form_of_argument(bench: Bench) -> None:
    images = put(bench.store, "images", {"a.png": b"A", "big/b.png": b"B" * (3 << 20)})
    folders = put(bench.store, "cases", {"one/x": b"1", "one/sub/y": b"2", "two/z": b"3"})
    model = put(bench.store, "model", {"m.bin": b"weights"})
    from dmlpipe.worker.job import Item, JobInput

    transform = python(
        bench.store,
        """
        from pathlib import Path
        def f(image, stem, case, C, model, *, scale):
            assert isinstance(image, bytes) and isinstance(case, Path) and isinstance(C, float)
            names = sorted(str(p.relative_to(case)) for p in case.rglob("*") if p.is_file())
            return {f"{stem}-{case.name}": repr((len(image), names, C, (model / "m.bin").read_text(), scale))}
        """,
        "f",
        parameter("image", "bytes"),
        parameter("stem", "str", source="capture", input="image"),
        parameter("case"),
        parameter("C", "scalar", source="value", scalar="float"),
        parameter("model"),
        parameter("scale", "scalar", source="parameter"),
    )
    job = spec(
        transform,
        varying("image", images),
        varying("case", folders),
        JobInput(name="C", kind="values", constant=False),
        constant("model", model),
        parameters={"scale": [1, 2]},
    )
    one = Item("one", "d", bytes(folders.root))
    two = Item("two/", "d", bytes(folders.root))
    datums = [
        datum(file_item(images, "a.png", stem="a"), one, Item("1", "v")),
        datum(file_item(images, "big/b.png", stem="b"), two, Item("0.5", "v")),
    ]
    bench.run(job, datums)
    assert bench.content(job.job) == {
        "a-one": b"(1, ['sub/y', 'x'], 1.0, 'weights', [1, 2])",
        "b-two": b"(3145728, ['z'], 0.5, 'weights', [1, 2])",
    }


def test_a_resident_class_is_made_once_per_content_of_its_inputs(bench: Bench) -> None:
    images, models = put(bench.store, "images", IMAGES), put(bench.store, "models", {"a": b"A", "b": b"B"})
    transform = python(
        bench.store,
        """
        class predict:
            made = 0
            def __init__(self, model):
                predict.made += 1
                self.name = model.read_text()
            def __call__(self, image):
                return {f"{self.name}/{image.name}": str(predict.made)}
        """,
        "predict",
        parameter("model", resident=True),
        parameter("image"),
        kind="class",
    )
    job = spec(transform, varying("model", models), varying("image", images))
    datums = [datum(file_item(models, m), file_item(images, i)) for m in "ab" for i in IMAGES]
    bench.run(job, datums)
    assert bench.content(job.job) == {f"{m}/{i}": n for m, n in (("A", b"1"), ("B", b"2")) for i in IMAGES}


BATCHED = """
import os
class predict:
    def __init__(self, model):
        self.model = model.read_text() if model.is_file() else (model / "m").read_text()
    def __call__(self, image, stem):
        with open(os.environ["CALLS"], "a") as f:
            f.write(f"{len(image)}\\n")
        bad = os.environ.get("BAD", "")
        if bad == "raise" and any(p.name == "3.png" for p in image):
            raise ValueError("cannot read 3.png")
        if bad == "exit" and any(p.name == "3.png" for p in image):
            os._exit(7)
        return [
            KeyError("three") if bad == "element" and p.name == "3.png" else {s + ".json": self.model + p.read_text()}
            for p, s in zip(image, stem, strict=True)
        ]
"""


@pytest.mark.parametrize(
    ("bad", "kind", "calls"),
    [
        ("", "", [4, 2]),
        ("element", "KeyError", [4, 2]),
        ("raise", "ValueError", None),
        ("exit", "exit", None),
    ],
)
def test_a_batch_splits_until_the_bad_datum_is_alone(
    bench: Bench, tmp_path: Path, bad: str, kind: str, calls: list[int] | None
) -> None:
    images, model = put(bench.store, "images", IMAGES), put(bench.store, "model", {"m": b"M:"})
    transform = python(
        bench.store,
        BATCHED,
        "predict",
        parameter("model", resident=True),
        parameter("image"),
        parameter("stem", "str", source="capture", input="image"),
        kind="class",
    )
    job = spec(transform, varying("image", images), constant("model", model), batch=4)
    bench.environ |= {"BAD": bad, "CALLS": str(tmp_path / "calls")}
    datums = [datum(file_item(images, name, stem=name[0])) for name in IMAGES]
    rows = bench.run(job, datums)
    failed = {key: row.failure.kind for key, row in rows.items() if row.failure}
    assert failed == ({"3.png": kind} if kind else {})
    expected = {f"{i}.json": f"M:image {i}".encode() for i in range(6) if not (kind and i == 3)}
    assert bench.content(job.job) == expected
    sizes = [int(line) for line in (tmp_path / "calls").read_text().split()]
    assert sizes == calls if calls else sizes.count(4) == 1


def run_one(bench: Bench, body: str, **options: object) -> tuple[Row, str]:
    """Run a function over one file; return its row and log."""
    tree = put(bench.store, "in", {"x": b"content"})
    source = "import os, sys, time, signal\nfrom pathlib import Path\ndef f(x):\n" + textwrap.indent(
        textwrap.dedent(body), "    "
    )
    job = spec(python(bench.store, source, "f", parameter("x")), varying("x", tree), **options)
    (row,) = bench.run(job, file_datums(tree)).values()
    return row, bench.log(row, job.job)


def test_a_failure_shows_the_users_frames_alone(bench: Bench) -> None:
    row, log = run_one(bench, "print('before')\nimport json\njson.loads('{')\n")
    assert row.failure is not None
    assert row.outcome is Outcome.FAILED
    assert row.failure.kind == "json.decoder.JSONDecodeError"
    assert row.failure.where == "dag.py:6 in f"
    assert row.failure.line == "json.loads('{')"
    assert "decoder.py" not in row.failure.traceback
    assert "worker" not in row.failure.traceback
    assert 'File "dag.py", line 6, in f' in row.failure.traceback
    assert log == "before\n"


def test_what_a_datum_prints_is_its_own_log(bench: Bench) -> None:
    tree = put(bench.store, "in", IMAGES)
    source = """
    import os, subprocess, sys
    def f(x):
        print("out", x.name)
        print("err", x.name, file=sys.stderr)
        subprocess.run(["echo", "child", x.name], check=True)
        os.write(1, b"raw\\n")
        return {}
    """
    job = spec(python(bench.store, source, "f", parameter("x")), varying("x", tree))
    rows = bench.run(job, file_datums(tree))
    for key, row in rows.items():
        lines = bench.log(row, job.job).splitlines()
        assert sorted(lines) == sorted([f"out {key}", f"err {key}", f"child {key}", "raw"])


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        ("os._exit(3)", "exit", "exit code 3"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "signal", "SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "signal", "SIGKILL"),
        ("sys.exit(2)", "SystemExit", "2"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", ""),
        ("return None", "dmlpipe", "it returned None"),
        ("x.chmod(0o644); x.write_bytes(b'mine'); return {}", "dmlpipe", "wrote to its input x/x"),
        ("return {'a': Path('/no')}", "dmlpipe", "there is no file '/no'"),
    ],
)
def test_a_bad_datum_fails_alone_with_its_reason(bench: Bench, body: str, kind: str, message: str) -> None:
    row, _ = run_one(bench, body)
    assert row.outcome is Outcome.FAILED
    assert row.failure is not None
    assert (row.failure.kind, row.tries) == (kind, 1)
    assert message in row.failure.message


def test_a_crash_names_the_line_and_keeps_the_log(bench: Bench) -> None:
    row, log = run_one(bench, "print('so far', flush=True)\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    assert row.failure is not None
    assert row.failure.where == "dag.py:5 in f"
    assert row.failure.line == "os.kill(os.getpid(), signal.SIGSEGV)"
    assert log.startswith("so far\n")


@pytest.mark.parametrize("hang", ["time.sleep(1000)", "while True: pass"])
def test_a_hang_is_ended_with_all_it_started(bench: Bench, tmp_path: Path, hang: str) -> None:
    pid = tmp_path / "pid"
    body = f"""
    import subprocess
    Path({str(pid)!r}).write_text(str(subprocess.Popen(["sleep", "1000"], start_new_session=True).pid))
    {hang}
    """
    row, _ = run_one(bench, body, timeout_s=0.5)
    assert row.failure is not None
    assert row.failure.kind == "timeout"
    assert row.failure.where.startswith("dag.py:")
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_a_crash_costs_one_try_and_nobody_elses_result(bench: Bench, tmp_path: Path) -> None:
    tree = put(bench.store, "in", {f"{i:03}": b"" for i in range(60)})
    source = f"""
    import os
    def f(x):
        mark = {str(tmp_path)!r} + "/died-" + x.name
        if x.name in ("007", "031") and not os.path.exists(mark):
            open(mark, "w").close()
            os._exit(1)
        return {{x.name: os.environ["DMLPIPE_TRY"]}}
    """
    job = spec(python(bench.store, source, "f", parameter("x")), varying("x", tree), tries=2)
    rows = bench.run(job, file_datums(tree), slots=2, size=20)
    assert {key for key, row in rows.items() if row.tries == 2} == {"007", "031"}
    assert all(row.outcome is Outcome.OK for row in rows.values())
    assert bench.content(job.job)["031"] == b"2"


def test_a_module_that_does_not_import_fails_every_datum_with_its_line(bench: Bench) -> None:
    tree = put(bench.store, "in", IMAGES)
    job = spec(
        python(bench.store, "import parts\n", "f", parameter("x"), others={"parts.py": "\n\n1 / 0\n"}),
        varying("x", tree),
    )
    rows = bench.run(job, file_datums(tree))
    assert {row.failure.where for row in rows.values() if row.failure} == {"parts.py:3 in <module>"}
    assert len(rows) == len(IMAGES)


def test_outputs_in_the_out_folder_and_large_ones(bench: Bench) -> None:
    tree = put(bench.store, "in", {"a": b"1", "b": b"2"})
    source = """
    def f(x, out):
        assert list(out.iterdir()) == []
        (out / "deep").mkdir()
        (out / "deep" / x.name).write_bytes(b"z" * (2 << 20))
        (out / f"link-{x.name}").symlink_to(x)
    """
    transform = python(bench.store, source, "f", parameter("x"), parameter("out", source="out"), result="out")
    job = spec(transform, varying("x", tree))
    bench.run(job, file_datums(tree))
    big = b"z" * (2 << 20)
    assert bench.content(job.job) == {"deep/a": big, "deep/b": big, "link-a": b"1", "link-b": b"2"}


def test_writing_to_a_linked_input_drops_the_cache_entry_and_the_next_reader_gets_the_truth(bench: Bench) -> None:
    big = b"v" * 200_000
    tree = put(bench.store, "in", {"x": big})
    source = """
    def f(x):
        x.chmod(0o644)
        with x.open("r+b") as file:
            file.write(b"CHANGED")
        return {}
    """
    job = spec(python(bench.store, source, "f", parameter("x")), varying("x", tree))
    (row,) = bench.run(job, file_datums(tree)).values()
    assert row.failure is not None
    assert "wrote to its input x/x" in row.failure.message
    honest = spec(
        python(bench.store, "def f(x): return {'n': x.read_bytes()}", "f", parameter("x")), varying("x", tree)
    )
    bench.run(honest, file_datums(tree))
    assert bench.content(honest.job) == {"n": big}


def test_writing_to_a_constant_input_fails_the_datum_and_mends_the_input(bench: Bench) -> None:
    tree, model = put(bench.store, "in", {"a": b"", "b": b""}), put(bench.store, "model", {"m": b"good"})
    source = """
    def f(x, model):
        if x.name == "a":
            (model / "m").unlink()
            (model / "m").write_text("bad")
        return {x.name: (model / "m").read_bytes()}
    """
    job = spec(
        python(bench.store, source, "f", parameter("x"), parameter("model")),
        varying("x", tree),
        constant("model", model),
    )
    datums = file_datums(tree)
    rows = bench.run(job, datums, size=1)
    assert rows["a"].failure is not None
    assert "wrote to its input model/m" in rows["a"].failure.message
    assert bench.content(job.job) == {"b": b"good"}


def test_children_see_no_cloud_store_or_cluster_variables(bench: Bench) -> None:
    bench.environ |= {
        "AWS_SECRET_ACCESS_KEY": "s3cret-value",
        "DMLPIPE_STORE": "s3://bucket",
        "DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY": "key",
        "HF_TOKEN": "hf-token-value",
        "HARMLESS": "1",
    }
    row, log = run_one(
        bench,
        """
        print(sorted(os.environ))
        print(Path("/proc/self/environ").read_text())
        print(os.environ["HF_TOKEN"])
        print(sorted(os.listdir("/proc/self/fd")))
        return {}
        """,
        secrets=("HF_TOKEN",),
    )
    assert row.failure is None
    assert "HARMLESS" in log
    assert "DMLPIPE_JOB" in log
    assert "HF_TOKEN" in log
    for hidden in ("AWS_SECRET", "s3cret", "DMLPIPE_STORE", "TLS", "hf-token-value"):
        assert hidden not in log
    assert "***" in log


def test_a_missing_secret_fails_the_datums_by_its_name(bench: Bench) -> None:
    row, _ = run_one(bench, "return {}", secrets=("NO_SUCH_SECRET_HERE",))
    assert row.failure is not None
    assert "secret 'NO_SUCH_SECRET_HERE' is not there" in row.failure.message


def test_versions_of_imported_packages_are_recorded(bench: Bench) -> None:
    tree = put(bench.store, "in", {"x": b""})
    source = "import yaml, click\ndef f(x): return {}"
    job = spec(python(bench.store, source, "f", parameter("x")), varying("x", tree))
    bench.run(job, file_datums(tree))
    (meta,) = bench.metas(job.job)
    assert {"PyYAML", "click"} <= set(meta.versions)
    assert "msgspec" not in meta.versions


def test_a_grandchild_that_keeps_the_socket_open_does_not_hide_a_death(bench: Bench) -> None:
    ours, theirs = socket_pair()
    ours.close()
    theirs.close()
    row, _ = run_one(bench, "if os.fork() == 0: time.sleep(1000)\nos._exit(4)\n")
    assert row.failure is not None
    assert row.failure.kind == "exit"


def test_a_small_datum_costs_one_message_and_large_outputs_more(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from dmlpipe.worker.slots import slot_child as module

    said: list[str] = []

    class Listening:
        def decode(self, data: bytes) -> object:
            message = from_child.decode(data)
            said.append(type(message).__name__)
            return message

    monkeypatch.setattr(module, "from_child", Listening())
    tree = put(bench.store, "images", IMAGES)
    source = """
        def f(image, files, size):
            return {f"{image[-1:].decode()}/{n}": b"x" * size for n in range(files)}
        """
    signature = (
        parameter("image", "bytes"),
        parameter("files", "scalar", source="parameter"),
        parameter("size", "scalar", source="parameter"),
    )
    transform = python(bench.store, source, "f", *signature)
    small = spec(transform, varying("image", tree), parameters={"files": 3, "size": 10})
    bench.run(small, file_datums(tree))
    assert said == ["Ready"] + ["Ended"] * len(IMAGES)
    said.clear()
    large = spec(transform, varying("image", tree), parameters={"files": 9, "size": 1_000_000})
    bench.run(large, file_datums(tree)[:1])
    assert said == ["Ready", "Produced", "Ended"]
    assert sorted(bench.content(large.job)) == [f"0/{n}" for n in range(9)]


HUNGRY = """
import os, subprocess, sys, time

def f(x):
    size = int(x.read_text())
    if x.name == "grandchild":
        subprocess.run([sys.executable, "-c", f"import time; held = bytearray({size}); time.sleep(60)"])
    held = bytearray(size)
    held[::4096] = b"x" * len(held[::4096])
    if size > 1 << 20:
        time.sleep(60)
    return {x.name: b"done"}
"""


def test_a_datum_over_its_memory_fails_alone_grandchildren_included(bench: Bench) -> None:
    big = str(400 << 20).encode()
    tree = put(bench.store, "in", {"a": b"1000", "b": big, "c": b"1000", "grandchild": big})
    job = spec(python(bench.store, HUNGRY, "f", parameter("x")), varying("x", tree), memory_bytes=200 << 20)
    rows = bench.run(job, file_datums(tree))
    assert [rows[name].outcome for name in "abc"] == [Outcome.OK, Outcome.FAILED, Outcome.OK]
    for name in ("b", "grandchild"):
        failure = rows[name].failure
        assert failure is not None
        assert failure.kind == "memory"
        assert "more than the 200 MiB" in failure.message
        assert rows[name].tries == 1


def test_a_class_that_loads_too_much_fails_with_the_reason(bench: Bench) -> None:
    source = """
    import time
    held = bytearray(400 << 20)
    held[::4096] = b"x" * len(held[::4096])
    time.sleep(60)
    def f(x): return {}
    """
    tree = put(bench.store, "in", {"a": b"", "b": b""})
    job = spec(python(bench.store, source, "f", parameter("x")), varying("x", tree), memory_bytes=200 << 20)
    rows = bench.run(job, file_datums(tree))
    assert {row.failure.kind for row in rows.values() if row.failure} == {"memory"}


def test_libraries_of_a_slot_start_as_many_threads_as_it_has_cpus(bench: Bench) -> None:
    bench.environ |= {"OMP_NUM_THREADS": "64", "CUDA_VISIBLE_DEVICES": "5"}
    source = """
    import os
    def f(x):
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
        return {x.name: " ".join(os.environ[name] for name in names)}
    """
    tree = put(bench.store, "in", {"a": b""})
    for cpus, said in ((0.5, b"1 1 1 5"), (3.0, b"3 3 3 5")):
        job = spec(python(bench.store, source, "f", parameter("x")), varying("x", tree), cpus=cpus)
        bench.run(job, file_datums(tree))
        assert bench.content(job.job) == {"a": said}


def test_each_slot_sees_a_device_of_its_own_and_jobs_without_gpus_see_none(bench: Bench, tmp_path: Path) -> None:
    source = """
    import os, time
    def f(x):
        seen = os.environ["CUDA_VISIBLE_DEVICES"]
        mine = f"{os.environ['LOCKS']}/{seen}"
        if seen:
            os.mkdir(mine)  # fails if another datum is at this device now
            time.sleep(0.02)
            os.rmdir(mine)
        return {x.name: seen}
    """
    (tmp_path / "locks").mkdir()
    bench.environ["LOCKS"] = str(tmp_path / "locks")
    tree = put(bench.store, "in", {f"{i:02}": b"" for i in range(24)})
    transform = python(bench.store, source, "f", parameter("x"))
    for gpus, seen in ((1, {b"3", b"GPU-a"}), (2, {b"3,GPU-a"}), (0, {b""})):
        job = spec(transform, varying("x", tree), gpus=gpus)
        # Three slots ask for two devices: here nobody but the devices themselves keeps them apart.
        bench.run(job, file_datums(tree), slots=3, size=2, devices=Devices(["3", "GPU-a"]))
        assert set(bench.content(job.job).values()) == seen


def test_a_log_of_any_length_stays_short_on_the_disk_and_keeps_both_ends(bench: Bench) -> None:
    source = """
    import os
    def f(x):
        if x.name == "loud":
            os.write(1, b"the first line\\n")
            for _ in range(320):
                os.write(1, b"x" * (1 << 20))
                used = os.fstat(1).st_blocks * 512
                peak = max(used, globals().get("peak", 0))
                globals()["peak"] = peak
            os.write(1, b"the last line\\n")
            import time
            time.sleep(0.5)
            return {x.name: str(os.fstat(1).st_blocks * 512)}
        print("a word")
        return {x.name: b""}
    """
    tree = put(bench.store, "in", {"loud": b"", "modest": b""})
    job = spec(python(bench.store, source, "f", parameter("x")), varying("x", tree))
    rows = bench.run(job, file_datums(tree))
    log = bench.log(rows["loud"], job.job)
    assert len(log) < 2 << 20
    assert log.startswith("the first line")
    assert log.endswith("the last line\n")
    assert "bytes left out" in log
    assert int(bench.content(job.job)["loud"]) <= 16 << 20
    assert bench.log(rows["modest"], job.job) == "a word\n"


@pytest.mark.parametrize(
    "mischief",
    [
        "threading.Thread(target=lambda: [time.sleep(0.01) for _ in iter(int, 1)], daemon=True).start()",
        "threading.Thread(target=time.sleep, args=(60,)).start()",
        "sys.stdout.close(); sys.stderr.close()",
        "os.close(1); os.close(2)",
        "subprocess.Popen(['sleep', '60'])",
        "os.fork() or time.sleep(60)",
        "leaked.append(bytearray(1 << 20)); open(x)",
        "os.chdir('/')",
        "os.environ.clear()",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    ],
    ids=["thread", "stubborn-thread", "stdout", "descriptors", "process", "fork", "leak", "chdir", "environ", "signal"],
)
def test_what_a_datum_leaves_behind_does_not_reach_the_next(bench: Bench, mischief: str) -> None:
    source = f"""
    import os, signal, subprocess, sys, threading, time
    leaked = []
    def f(x):
        print("heard", x.name)
        if x.name != "2":
            {mischief}
        return {{x.name: str(len(x.read_bytes()))}}
    """
    tree = put(bench.store, "in", {str(i): b"four" for i in range(4)})
    job = spec(python(bench.store, source, "f", parameter("x")), varying("x", tree))
    rows = bench.run(job, file_datums(tree))
    assert {name: row.failure for name, row in rows.items() if row.outcome is not Outcome.OK} == {}
    assert bench.content(job.job) == {str(i): b"4" for i in range(4)}
    assert {name: bench.log(row, job.job) for name, row in rows.items()} == {str(i): f"heard {i}\n" for i in range(4)}


SMALL, LINKED = 4, 100_000
"""Sizes of an input that the child lays out, and of one that the worker does."""


@pytest.mark.parametrize("size", [SMALL, LINKED])
def test_folders_are_used_again_under_new_names(bench: Bench, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    source = """
    import os
    def f(x, out):
        assert not os.listdir(out)
        assert os.listdir(x.parent) == [x.name]
        (out / "deep").mkdir()
        (out / "deep" / x.name).write_text(f"{out} {os.stat(out.parent).st_ino}")
    """
    made: list[str] = []

    def mkdir(path: str, *arguments: object, **options: object) -> None:
        made.append(path)
        real_mkdir(path, *arguments, **options)  # type: ignore[arg-type]

    real_mkdir = os.mkdir
    tree = put(bench.store, "in", {f"{i % 7}/{i}": b"x" * size for i in range(60)})
    signature = (parameter("x"), parameter("out", source="out"))
    job = spec(python(bench.store, source, "f", *signature, result="out"), varying("x", tree))
    monkeypatch.setattr(os, "mkdir", mkdir)
    bench.run(job, file_datums(tree), size=3)
    seen = [tuple(content.split()) for content in bench.content(job.job).values()]
    assert len({path for path, _ in seen}) == 60, "a path was used twice"
    # Of 60 datums with a folder in and one out; at most three are laid out at a time, by the child one.
    assert len({inode for _, inode in seen}) <= (1 if size == SMALL else 4)
    assert len([path for path in made if "/d/" in str(path)]) <= (1 if size == SMALL else 20)


@pytest.mark.parametrize("size", [SMALL, LINKED])
@pytest.mark.parametrize("held", ["os.open(out, os.O_RDONLY)", "os.chdir(out)"], ids=["thread", "chdir"])
def test_what_still_holds_a_datums_folder_writes_into_no_others(bench: Bench, held: str, size: int) -> None:
    source = f"""
    import os, threading
    go = threading.Event()
    late = []
    def write(fd):
        go.wait()
        os.open("late", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
    def f(x, out):
        if not late:
            late.append(threading.Thread(target=write, args=[{held}], daemon=True))
            late[0].start() if late[0]._args[0] else None
        elif late[0].is_alive():
            go.set()
            late[0].join()
        else:
            try:
                open("late", "w")
            except FileNotFoundError:
                pass
        (out / x.name).write_text("mine")
    """
    tree = put(bench.store, "in", {str(i): b"x" * size for i in range(12)})
    signature = (parameter("x"), parameter("out", source="out"))
    job = spec(python(bench.store, source, "f", *signature, result="out"), varying("x", tree), timeout_s=20.0)
    # Leases so short that the second datum has the berth of the first, if it may.
    bench.run(job, file_datums(tree), size=1)
    assert bench.content(job.job) == {str(i): b"mine" for i in range(12)}


SPOILS = {
    "files-without-room": "resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))",
    "its-folders-gone": "shutil.rmtree(x.parents[2])",
}


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
@pytest.mark.parametrize("batch", [0, 3])
def test_a_child_that_cannot_lay_out_leaves_it_to_the_worker(bench: Bench, spoil: str, batch: int) -> None:
    source = f"""
    import os, resource, shutil
    def one(x):
        own = "/own/" in str(x)
        text = f"{{x.read_text()}} {{os.listdir(x.parent) == [x.name]}} {{own}}"
        if own and x.name == "00":
            {spoil}
        return {{x.name: text}}
    def f(x):
        return [one(each) for each in x] if isinstance(x, list) else one(x)
    """
    tree = put(bench.store, "in", {f"{i:02}": b"%d" % i for i in range(40)})
    job = spec(python(bench.store, source, "f", parameter("x")), varying("x", tree), batch=batch)
    rows = bench.run(job, file_datums(tree))
    # It removed its own input; in a batch those of others, too, which then is tried in halves, without that.
    guilty = ["00"] if "rmtree" in spoil and not batch else []
    assert [key for key, row in rows.items() if row.outcome is not Outcome.OK] == guilty
    assert {row.tries for row in rows.values()} == {1}
    found = {key: text.decode().split() for key, text in bench.content(job.job).items()}
    expected = {f"{i:02}": [str(i), "True"] for i in range(40)}
    assert {key: text[:2] for key, text in found.items()} == {k: v for k, v in expected.items() if k not in guilty}
    assert (found["01"][2], found["39"][2]) == ("True" if batch and "rlimit" in spoil else "False", "False")


@pytest.mark.parametrize(("size", "most"), [(60_000, 70), (100_000, 32), (10, 256)])
def test_a_frame_holds_so_many_folders_or_so_much_content(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, size: int, most: int
) -> None:
    monkeypatch.setattr("dmlpipe.worker.slots.lease_run.FRAME_TARGET_S", 1e9)
    frames: list[int] = []
    work = SlotChild.work

    def counted(child: SlotChild, units: Sequence[Unit], *, give_up: GiveUp | None = None) -> None:
        frames.append(len(units))
        work(child, units, give_up=give_up)

    monkeypatch.setattr(SlotChild, "work", counted)
    tree = put(bench.store, "in", {f"{i:03}": os.urandom(size) for i in range(600 if size == 10 else 150)})
    job = spec(python(bench.store, "def f(x):\n    return {}\n", "f", parameter("x")), varying("x", tree))
    bench.run(job, file_datums(tree))
    assert (frames[0], max(frames)) == (1, most)


def test_a_child_holds_no_folders_of_jobs_that_are_past(bench: Bench) -> None:
    source = """
    import os
    def f(x, out):
        (out / x.name).write_text(f"{os.getpid()} {len(os.listdir('/proc/self/fd'))}")
    """
    signature = (parameter("x"), parameter("out", source="out"))
    transform = python(bench.store, source, "f", *signature, result="out")
    trees = [put(bench.store, f"in{number}", {f"{number}-{i}": b"small" for i in range(3)}) for number in range(4)]
    jobs = [spec(transform, varying("x", tree)) for tree in trees]
    leases = [lease for job, tree in zip(jobs, trees, strict=True) for lease in bench.leases(job, file_datums(tree))]
    assert asyncio.run(bench._bounded(bench.loop(ListSource(leases)))) == ""
    seen = [tuple(content.split()) for job in jobs for content in bench.content(job.job).values()]
    assert len(seen) == 12
    assert len({pid for pid, _ in seen}) == 1
    assert len({count for _, count in seen}) == 1, "descriptors of one job are left in the next"


@pytest.mark.parametrize(("batch", "by"), [(0, "own"), (32, "own"), (33, "d"), (1000, "d")])
def test_who_lays_out_a_batch(bench: Bench, batch: int, by: str) -> None:
    source = """
    def f(x):
        return {x.name: x.parents[2].name} if not isinstance(x, list) else [f(each) for each in x]
    """
    tree = put(bench.store, "in", {f"{i:03}": b"small" for i in range(70)})
    job = spec(python(bench.store, source, "f", parameter("x")), varying("x", tree), batch=batch)
    bench.run(job, file_datums(tree))
    found = set(bench.content(job.job).values())
    # Below ``own`` is a folder for each job, too.
    assert found == ({b"1"} if by == "own" else {b"d"})


def test_what_a_killed_child_had_laid_out_is_removed(bench: Bench) -> None:
    source = """
    import os
    def f(x, out):
        if x.name == "1":
            (out / "large").write_bytes(bytes(1 << 20))
            os.abort()
        own = out.parents[2]
        assert own.name == "own"
        left = sum(os.path.getsize(f"{folder}/{name}") for folder, _, names in os.walk(own) for name in names)
        (out / x.name).write_text(f"{len(os.listdir(own))} {left}")
    """
    tree = put(bench.store, "in", {str(i): b"four" for i in range(4)})
    signature = (parameter("x"), parameter("out", source="out"))
    job = spec(python(bench.store, source, "f", *signature, result="out"), varying("x", tree))
    rows = bench.run(job, file_datums(tree))
    assert [name for name, row in rows.items() if row.outcome is Outcome.FAILED] == ["1"]
    # The folder of the job, in it the input alone.
    assert bench.content(job.job) == dict.fromkeys("023", b"1 4")


def test_removing_a_datums_outputs_is_not_the_next_ones_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from dmlpipe.worker.slots import slot_child as module

    said: list[str] = []

    class Listening:
        def decode(self, data: bytes) -> object:
            message = from_child.decode(data)
            said.append(f"{type(message).__name__}{getattr(message, 'begin', '')}")
            return message

    monkeypatch.setattr(module, "from_child", Listening())
    source = """
    def f(x, out, deep):
        (out / deep).mkdir(exist_ok=True)
        (out / deep / x.name).touch()
    """
    tree = put(bench.store, "in", dict.fromkeys("abc", b"small"))
    signature = (parameter("x"), parameter("out", source="out"), parameter("deep", "scalar", source="parameter"))
    transform = python(bench.store, source, "f", *signature, result="out")
    bench.run(spec(transform, varying("x", tree), parameters={"deep": ""}), file_datums(tree))
    assert said == ["Ready", "Ended", "Ended", "Ended"], "few files: not worth a message"
    said.clear()
    bench.run(spec(transform, varying("x", tree), parameters={"deep": "er"}), file_datums(tree))
    between = ["LoadingTrue", "LoadingFalse"]
    assert said[:8] == ["Ready", "Ended", *between, "Ended", *between, "Ended"]


def test_pipes_and_links_to_what_was_not_fetched(bench: Bench) -> None:
    tree = put(bench.store, "images", {"a.png": b"A" * 300_000, "b.png": b"B"})
    shell = "cat $image > $out/$(basename $image).txt; ln -s $image $out/$(basename $image)"
    transform = CommandTransform(argv=("bash", "-euo", "pipefail", "-c", shell), shell=True)
    for flags in ({"lazy": True}, {"empty": True}):
        job = spec(transform, msgspec.structs.replace(varying("image", tree), **flags))
        rows = bench.run(job, file_datums(tree), size=2)
        assert [row.outcome for row in rows.values()] == [Outcome.OK, Outcome.OK]
        content = bench.content(job.job)
        assert content["a.png"] == b"A" * 300_000
        assert content["a.png.txt"] == (b"A" * 300_000 if "lazy" in flags else b"")


def test_a_function_returns_what_it_did_not_read(bench: Bench) -> None:
    tree = put(bench.store, "images", {"a.png": b"A" * 300_000})
    transform = python(bench.store, "def f(image):\n    return {'moved/a': image}", "f", parameter("image"))
    job = spec(transform, msgspec.structs.replace(varying("image", tree), empty=True))
    bench.run(job, file_datums(tree))
    assert bench.content(job.job)["moved/a"] == b"A" * 300_000


def test_a_pipe_that_breaks_off_fails_the_datum(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = put(bench.store, "images", {"a.png": b"A" * 300_000})

    def gone(self: object, value: object) -> object:
        raise CorruptError("the content of a.png is damaged")

    monkeypatch.setattr(type(bench.store.objects), "open", gone)
    transform = CommandTransform(argv=("bash", "-c", "cat $image > $out/a"), shell=True)
    job = spec(transform, msgspec.structs.replace(varying("image", tree), lazy=True))
    (row,) = bench.run(job, file_datums(tree)).values()
    assert row.outcome is Outcome.FAILED
    assert row.failure is not None
    assert "is damaged" in row.failure.message


def test_datums_whose_inputs_do_not_fit_together_wait_for_each_other(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first call is laid out alone; after it, all that are left go into one frame.
    monkeypatch.setattr("dmlpipe.worker.slots.lease_run.FRAME_TARGET_S", 1e9)
    cache = bench.store.cache
    lay = cache.lay
    refused = 0

    def lay_on_a_small_disk(value: Value, objects: ContentReader, target: str) -> bool:
        nonlocal refused
        linked = sum(entry.stat().st_nlink > 1 for entry in cache.folder.glob("??/*"))
        if linked >= 3:
            refused += 1
            raise BackendError("no room", code=ErrorCode.DISK_FULL)
        return lay(value, objects, target)

    monkeypatch.setattr(cache, "lay", lay_on_a_small_disk)
    tree = put(bench.store, "in", {f"{i:02}": bytes([i]) * 100_000 for i in range(20)})
    transform = python(bench.store, "def f(x):\n    return {x.name: str(x.stat().st_size)}\n", "f", parameter("x"))
    job = spec(transform, varying("x", tree))
    rows = bench.run(job, file_datums(tree))
    assert {row.outcome for row in rows.values()} == {Outcome.OK}
    assert refused == 2  # once all together, once one by one
    assert bench.content(job.job) == {f"{i:02}": b"100000" for i in range(20)}


def test_a_datum_whose_input_fits_nowhere_fails(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def lay(value: Value, objects: ContentReader, target: str) -> bool:
        raise BackendError("no room at all", code=ErrorCode.DISK_FULL)

    monkeypatch.setattr(bench.store.cache, "lay", lay)
    tree = put(bench.store, "in", {"x": b"x" * 100_000, "y": b"y" * 100_000})
    job = spec(python(bench.store, "def f(x):\n    return {}\n", "f", parameter("x")), varying("x", tree))
    rows = bench.run(job, file_datums(tree))
    failures = [row.failure for row in rows.values()]
    assert all(failure is not None and "no room at all" in failure.message for failure in failures)


def test_the_ends_of_short_datums_are_taken_in_together(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = []
    receive = SlotChild.receive

    def counted(child: SlotChild, timeout_s: float | None, *, gather_s: float = 0.0) -> Message | None:
        message = receive(child, timeout_s, gather_s=gather_s)
        heard.append(message is not None)
        return message

    monkeypatch.setattr(SlotChild, "receive", counted)
    tree = put(bench.store, "in", {f"{number}": b"" for number in range(300)})
    source = "import time\ndef f(x): time.sleep(0.002); return {}"
    job = spec(python(bench.store, source, "f", parameter("x", form="bytes")), varying("x", tree))
    bench.run(job, file_datums(tree))
    # Each that is listened to alone takes a core from the child.
    assert sum(heard) < 150


def test_what_is_imported_is_kept_from_the_collector_and_what_datums_leave_is_not(bench: Bench) -> None:
    tree = put(bench.store, "in", {"a": b"", "b": b""})
    source = """
        import gc
        def f(x):
            if gc.get_freeze_count() < 1000 or gc.get_threshold() != USUAL:
                raise ValueError(f"{gc.get_freeze_count()} {gc.get_threshold()}")
            return {}
        """
    # A new interpreter's: other tests may have set those of this process.
    usual = subprocess.check_output([sys.executable, "-c", "import gc; print(gc.get_threshold())"], text=True)
    source = source.replace("USUAL", usual.strip())
    job = spec(python(bench.store, source, "f", parameter("x")), varying("x", tree))
    rows = bench.run(job, file_datums(tree), size=1)
    assert [row.failure for row in rows.values()] == [None, None]


def test_the_thresholds_that_user_code_sets_hold(bench: Bench) -> None:
    tree = put(bench.store, "in", {"a": b""})
    source = """
        import gc
        gc.set_threshold(5_000, 5, 5)
        def f(x):
            if gc.get_threshold() != (5_000, 5, 5) or gc.get_freeze_count() > 1000:
                raise ValueError(f"{gc.get_freeze_count()} {gc.get_threshold()}")
            return {}
        """
    job = spec(python(bench.store, source, "f", parameter("x")), varying("x", tree))
    rows = bench.run(job, file_datums(tree))
    assert [row.failure for row in rows.values()] == [None]
