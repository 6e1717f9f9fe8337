"""Fake GPUs: each lease has its own, children that hold one are ended before another slot gets it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from dmlpipe.worker.slots.devices import Devices, find_devices

WAIT_S = 10.0


def nothing() -> None:
    raise AssertionError("nobody had to make room")


@pytest.mark.parametrize(
    ("visible", "found"),
    [("0,1", ("0", "1")), ("", ()), ("GPU-5a, 3", ("GPU-5a", "3")), ("1,-1,2", ("1",)), ("NoDevFiles", ())],
)
def test_visible_devices_are_read_as_the_driver_reads_them(visible: str, found: tuple[str, ...]) -> None:
    assert find_devices({"CUDA_VISIBLE_DEVICES": visible}) == found


def test_without_a_word_about_them_device_files_count(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    for name in ("nvidia0", "nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / "dev" / name).touch()
    assert find_devices({}, tmp_path) == ("0", "2", "10")
    assert find_devices({"CUDA_VISIBLE_DEVICES": ""}, tmp_path) == ()


def test_a_slot_gets_its_device_back_and_others_are_ended_only_if_they_must() -> None:
    devices = Devices(["0", "1"])
    ended: list[int] = []
    assert devices.acquire(7, 1, nothing) == ("0",)
    assert devices.acquire(8, 1, lambda: ended.append(8)) == ("1",)
    devices.release(("0",))
    devices.release(("1",))
    assert devices.acquire(8, 1, lambda: ended.append(8)) == ("1",)
    devices.release(("1",))
    assert devices.acquire(7, 2, nothing) == ("0", "1")
    assert ended == [8]


def test_a_lease_waits_until_enough_devices_are_free() -> None:
    devices = Devices(["0", "1"])
    first = devices.acquire(1, 1, lambda: None)
    got: list[tuple[str, ...]] = []
    waiting = threading.Thread(target=lambda: got.append(devices.acquire(2, 2, nothing)))
    waiting.start()
    assert not got
    devices.release(first)
    waiting.join(WAIT_S)
    assert got == [("0", "1")]


def test_a_job_without_gpus_takes_none() -> None:
    assert Devices(["0"]).acquire(1, 0, nothing) == ()
    assert Devices().acquire(1, 1, nothing) == ()
