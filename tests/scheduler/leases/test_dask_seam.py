"""What the seam uses of distributed exists in the installed release, and means what we think."""

from __future__ import annotations

import inspect

import dask.config
import pytest
from distributed import Scheduler
from distributed.comm.core import Comm, connect
from distributed.diagnostics.plugin import SchedulerPlugin

from dmlpipe.scheduler.leases.dask_seam import CONFIG


@pytest.mark.parametrize("key", sorted(CONFIG))
def test_every_setting_exists(key: str) -> None:
    dask.config.get(key)


def test_the_scheduler_takes_what_we_give_it() -> None:
    names = inspect.signature(Scheduler.__init__).parameters
    assert {"host", "port", "dashboard", "dashboard_address"} <= set(names)
    assert hasattr(Scheduler, "add_plugin")


def test_the_worker_hooks_have_the_arguments_we_name() -> None:
    assert list(inspect.signature(SchedulerPlugin.add_worker).parameters)[1:] == ["scheduler", "worker"]
    assert list(inspect.signature(SchedulerPlugin.remove_worker).parameters)[1:3] == ["scheduler", "worker"]


def test_comms_can_be_opened_and_dropped() -> None:
    assert {"addr", "timeout", "deserialize"} <= set(inspect.signature(connect).parameters)
    assert {"read", "write", "abort"} <= set(dir(Comm))
