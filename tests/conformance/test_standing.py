"""Spouts and services, as specs say them: what they are here, and what makes no job."""

from __future__ import annotations

from typing import Any

import pytest

from dmlpipe.storage.errors import ErrorCode, InvalidInputError, ReadOnlyError
from tests.conformance.lab import Lab, Spec, cross, pfs


def spout(lab: Lab, name: str = "feed", **fields: Any) -> Spec:
    made = lab.spec(name, {}, "true", spout={}, **fields)
    del made["input"]
    return made


def service(lab: Lab, input: Spec) -> Spec:
    return lab.spec("web", input, "true", service={"internalPort": 8080, "externalPort": 30080})


def test_a_spout_has_no_input_and_makes_no_job(lab: Lab) -> None:
    lab.submit(spout(lab))
    assert lab.run().counts == {}
    assert lab.plan()["feed"].detail == "a spout: dmlpipe up keeps it running"
    assert lab.store.status().pipelines[0].state == "waits for up"


def test_what_a_spout_commits_starts_its_consumers(lab: Lab) -> None:
    lab.submit(spout(lab), lab.spec("p", pfs("feed")))
    lab.put("feed", {"a": "1"})
    assert lab.run().counts == {"p": (1, 0)}
    lab.put("feed", {"b": "1"})
    assert lab.run().counts == {"p": (1, 1)}


def test_only_a_spouts_own_commits_are_put_into_an_output(lab: Lab) -> None:
    lab.put("r", {"a": ""})
    lab.submit(lab.spec("p", pfs("r")))
    with pytest.raises(ReadOnlyError, match="output of pipeline 'p'"):
        lab.put("p", {"a": ""})


def test_a_spout_with_an_input_is_refused(lab: Lab) -> None:
    lab.put("r", {"a": ""})
    with pytest.raises(InvalidInputError, match="a spout has no input"):
        lab.submit(spout(lab) | {"input": pfs("r")})


def test_a_service_makes_no_job_and_no_cause(lab: Lab) -> None:
    lab.put("r", {"a": ""})
    (told,) = lab.submit(service(lab, pfs("r", "/")))
    assert "without meaning here: service.externalPort" in " ".join(told.notices)
    assert lab.run().counts == {}
    lab.put("r", {"b": ""})
    assert list(lab.store.refresh().causes()) == []
    assert lab.store.pipeline_spec("web").standing.port == 8080  # type: ignore[union-attr]


def test_a_service_serves_files(lab: Lab) -> None:
    lab.put("r", {"a": ""})
    lab.submit(service(lab, cross(pfs("r", "/", name="x"), pfs("r", "/", name="y"))))
    with pytest.raises(InvalidInputError, match="can serve files"):
        lab.submit(service(lab, {"join": [pfs("r", "/(*)", joinOn="$1")]}))


@pytest.mark.parametrize("kind", ["spout", "service"])
def test_a_run_of_what_stands_is_refused_with_a_clear_word(lab: Lab, kind: str) -> None:
    lab.put("r", {"a": ""})
    spec = spout(lab, "web") if kind == "spout" else service(lab, pfs("r", "/"))
    lab.submit(spec)
    with pytest.raises(InvalidInputError, match=f"web is a {kind}: it runs for as long as a cluster is up") as caught:
        lab.run("web")
    assert caught.value.code is ErrorCode.UNSUPPORTED
    assert caught.value.hint == "start one: dmlpipe up"
