"""The scans are dealt out as the demo says."""

import random

from dmlpipe.cli.demo.data import ARRIVING, INPUT, MISLABELLED, SWAPPED, TRAINING, split


def test_every_scan_is_in_one_part_and_the_parts_have_their_sizes() -> None:
    labels = [n % 10 for n in range(1797)]
    parts = split(labels)
    assert [len(part) for part in parts] == [TRAINING, INPUT, 2 * ARRIVING, MISLABELLED]
    assert sorted(n for part in parts for n in part) == list(range(1797))


def test_half_of_the_mislabelled_scans_are_of_each_digit() -> None:
    labels = [random.Random(1).choice(range(10)) if n > 999 else n % 10 for n in range(1797)]
    *_, swapped = split(labels)
    assert [sum(labels[n] == digit for n in swapped) for digit in SWAPPED] == [MISLABELLED // 2] * 2


def test_the_split_follows_from_the_seed() -> None:
    labels = [n % 10 for n in range(1797)]
    assert split(labels) == split(labels)
