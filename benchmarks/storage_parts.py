"""What is measured inside one process, or a few: commit trees, the ledger, reading through ``dml://``."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import msgspec
import zstandard

from dmlpipe.storage.backend.memory import MemoryBackend
from dmlpipe.storage.ledger.group_commit import GroupCommit
from dmlpipe.storage.objects.node import NodeStore
from dmlpipe.storage.objects.value import Whole, encode_value
from dmlpipe.storage.records import RepoCreate
from dmlpipe.storage.store import Store
from dmlpipe.storage.trees.prolly import Tree, build

_COMMITS = """
import sys
from dmlpipe.storage.store import Store
store, name = Store.open(sys.argv[1], cache_dir=sys.argv[3]), sys.argv[2]
sys.stdin.readline()
for number in range(int(sys.argv[4])):
    store.put(name, (f"{number}.txt", f"{name} {number}"), create=True)
print(store.ledger.lost_races)
"""


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return seconds and what `work` returned."""
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


def tree_part(entries: int) -> dict[str, Any]:
    """Build a commit tree, change it, compare, list a folder."""
    rng = random.Random(3)
    items = [
        (b"train/class_%04d/img_%08d.jpg" % (number // 1000, number), encode_value(Whole(2000, rng.randbytes(32))))
        for number in range(entries)
    ]
    shuffled = rng.sample(items, len(items))

    def sort_and_encode() -> None:
        ordered = sorted(shuffled)
        packer = zstandard.ZstdCompressor(level=1, write_checksum=True)
        encode = msgspec.msgpack.Encoder().encode
        for start in range(0, len(ordered), 1024):
            part = ordered[start : start + 1024]
            packer.compress(encode([1, 0, [key for key, _ in part], [value for _, value in part]]))

    encode_s, _ = timed(sort_and_encode)
    nodes = NodeStore(MemoryBackend("bench-tree"))
    build_s, tree = timed(lambda: build(nodes, sorted(shuffled)))
    built = nodes.writes
    changed = [(key, encode_value(Whole(1, rng.randbytes(32)))) for key, _ in sorted(rng.sample(items, 10))]
    update_s, newer = timed(lambda: tree.update(changed))
    written = nodes.writes - built
    cold = NodeStore(nodes.backend)
    diff_s, found = timed(lambda: list(Tree(cold, tree.root).diff(Tree(cold, newer.root))))
    diff_reads, colder = cold.reads, NodeStore(nodes.backend)
    list_s, names = timed(lambda: list(Tree(colder, tree.root).prefix(b"train/class_0000/")))
    return {
        "entries": entries,
        "build_s": round(build_s, 3),
        "sort_and_encode_s": round(encode_s, 3),
        "build_to_sort_and_encode": round(build_s / encode_s, 3),
        "nodes": built,
        "update_10": {"seconds": round(update_s, 4), "nodes_written": written},
        "diff_10": {"seconds": round(diff_s, 4), "nodes_read": diff_reads, "found": len(found)},
        "list_folder": {"seconds": round(list_s, 4), "nodes_read": colder.reads, "found": len(names)},
    }


def ledger_part(folder: Path, processes: int = 8, commits: int = 100, threads: int = 64) -> dict[str, Any]:
    """Commit from many processes at once; append from many threads by group commit."""
    store = Store.init(folder / "ledger", cache_dir=folder / "ledger-cache")
    command = [sys.executable, "-c", _COMMITS, str(folder / "ledger")]
    children = [
        subprocess.Popen(
            [*command, f"writer-{letter}", str(folder / f"ledger-cache-{letter}"), str(commits)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for letter in "abcdefghijklmnopqrstuvwxyz"[:processes]
    ]
    time.sleep(1.0)  # all have imported what they need
    began = time.perf_counter()
    for child in children:
        assert child.stdin is not None
        child.stdin.write(b"go\n")
        child.stdin.close()
    lost = 0
    for child in children:
        assert child.stdout is not None
        lost += int(child.stdout.read() or 0)
    codes = [child.wait() for child in children]
    seconds = time.perf_counter() - began
    entries = sum(1 for _ in Store.open(store.url, cache_dir=folder / "ledger-cache").ledger.entries())
    group_store = Store.init(folder / "group", cache_dir=folder / "group-cache")
    group = GroupCommit(group_store.ledger)
    gate = threading.Barrier(threads + 1)

    def append(name: str) -> None:
        gate.wait()
        for number in range(50):
            group.append([RepoCreate(repo=f"{name}-{number}")])

    workers = [threading.Thread(target=append, args=(f"t{number}",)) for number in range(threads)]
    for worker in workers:
        worker.start()
    gate.wait()
    began = time.perf_counter()
    for worker in workers:
        worker.join()
    group_s = time.perf_counter() - began
    return {
        "processes": processes,
        "commits": entries,
        "failed_processes": sum(map(bool, codes)),
        "commits_per_s": round(entries / seconds, 1),
        "failed_tries_per_commit": round(lost / entries, 2),
        "group_records_per_s": round(threads * 50 / group_s, 1),
        "group_entries": group_store.state.n + 1,
    }


def reading_part(folder: Path, files: int = 1000, repeats: int = 5) -> dict[str, Any]:
    """Read the files of one folder in random order, from the plain folder and through ``dml://``, warm."""
    rng = random.Random(9)
    plain = folder / "plain"
    plain.mkdir()
    for number in range(files):
        (plain / f"{number:04d}.bin").write_bytes(rng.randbytes(rng.randint(1024, 4096)))
    store = Store.init(folder / "read", cache_dir=folder / "read-cache")
    store.put("r", plain)
    names = [f"{number:04d}.bin" for number in rng.sample(range(files), files)]
    fs = fsspec.filesystem("dml", store=store.url, cache_dir=str(folder / "read-cache"), skip_instance_cache=True)

    def read_plain() -> list[bytes]:
        return [(plain / name).read_bytes() for name in names]

    def read_dml() -> list[bytes]:
        return [fs.cat_file(f"r@master/{name}") for name in names]

    assert read_plain() == read_dml()
    rounds = [(timed(read_plain)[0], timed(read_dml)[0]) for _ in range(repeats)]
    many = [timed(lambda: fs.cat([f"r@master/{name}" for name in names]))[0] for _ in range(repeats)]
    found = sorted(mine / theirs for theirs, mine in rounds)
    together = sorted(mine / theirs for (theirs, _), mine in zip(rounds, many, strict=True))
    return {
        "files": files,
        "one_by_one_to_plain": round(found[repeats // 2], 2),
        "together_to_plain": round(together[repeats // 2], 2),
    }
