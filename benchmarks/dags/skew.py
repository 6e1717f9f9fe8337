"""Datums that sleep as long as their file says, and tell when they did."""

from __future__ import annotations

import time

import dmlpipe as dml

dag = dml.DAG("skew")


def nap(seconds: bytes) -> str:
    """Sleep, and return when it began and ended."""
    began = time.monotonic()
    time.sleep(float(seconds))
    return f"{began} {time.monotonic()}"


@dag.pipeline(dml.files("naps", "/{number}"))
def slept(naps: bytes, number: str) -> dml.Files:
    """Sleep."""
    return {number: nap(naps)}


@dag.pipeline(dml.files("few", "/{number}"))
def warm(few: bytes, number: str) -> dml.Files:
    """Sleep."""
    return {number: nap(few)}
