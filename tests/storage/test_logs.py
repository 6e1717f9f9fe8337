"""Logs of parts of a process in files of their own."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from dmlpipe.storage.logs import to_file

LOGGER = "dmlpipe.tests.part"


def test_a_part_logs_to_its_file_alone_and_all_is_as_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger(LOGGER)
    logger.setLevel(logging.ERROR)
    first, second = tmp_path / "first.log", tmp_path / "second.log"
    with to_file(first, "worker", LOGGER) as fd:
        logging.getLogger(f"{LOGGER}.below").info("one")
        os.write(fd, b"printed\n")
        with to_file(second, "worker", LOGGER):
            logger.info("two")
        logger.info("three")
    logger.info("nobody hears this")
    logger.error("everybody hears this")
    assert [line.rpartition(": ")[2] for line in first.read_text().splitlines()] == ["one", "printed", "two", "three"]
    assert [line.rpartition(": ")[2] for line in second.read_text().splitlines()] == ["two"]
    assert [record.message for record in caplog.records] == ["everybody hears this"]
    assert (logger.handlers, logger.level, logger.propagate) == ([], logging.ERROR, True)
