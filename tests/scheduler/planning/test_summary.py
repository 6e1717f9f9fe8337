from __future__ import annotations

import json

import msgspec

from dmlpipe.scheduler.inputs.combine import cross, group, join
from dmlpipe.scheduler.inputs.leaf import array, files, values
from dmlpipe.scheduler.planning.plan import plan_job
from dmlpipe.scheduler.planning.reasons import Reason, Why
from dmlpipe.scheduler.planning.summary import PlanSummary, ReasonCount, describe_key, summarize
from dmlpipe.storage.records import Context
from tests.scheduler.shelf import Listing, Shelf, binding, pipeline

NODE = cross(files("images", "/*.png"), files("model"))


def summary(shelf: Shelf, listing: Listing, context: Context | None = None, why: tuple[Why, ...] = ()) -> PlanSummary:
    bound = {"images": binding("images", shelf.tree(listing)), "model": binding("model", shelf.tree({"m": "1"}))}
    return summarize(plan_job(pipeline(NODE), bound, context, shelf.open, why=why), "predictions")


def context_of(shelf: Shelf, listing: Listing) -> Context:
    keys = [path.encode() for path in listing]
    root = shelf.tree(listing).root.hex()
    return Context(inputs={"images": root}, order=("images",), t=shelf.raw(dict.fromkeys(keys, b"t")))


def test_a_first_run_counts_without_listing_reasons_one_by_one() -> None:
    found = summary(Shelf(), {"a.png": "1", "b.png": "1", "c.txt": "1"})
    assert (found.total, found.run, found.skipped) == (2, 2, 0)
    assert found.reasons == (ReasonCount(Reason.FIRST_RUN, "", 2, "images:/a.png"),)


def test_changed_code_names_the_place() -> None:
    found = summary(Shelf(), {"a.png": "1"}, why=(Why(Reason.CODE_CHANGED, "model(), dag.py:14"),))
    assert [str(line) for line in found.reasons] == ["code changed: model(), dag.py:14"]


def test_a_change_counts_by_reason() -> None:
    shelf = Shelf()
    before = {"a.png": "1", "b.png": "1", "c.png": "1"}
    after = {"a.png": "2", "b.png": "1", "d.png": "1", "e.png": "1"}
    found = summary(shelf, after, context_of(shelf, before))
    assert (found.mode, found.total, found.run, found.skipped, found.removed) == ("delta", 4, 3, 1, 1)
    assert found.reasons == (
        ReasonCount(Reason.NEW, "", 2, "images:/d.png"),
        ReasonCount(Reason.INPUT_CHANGED, "images", 1, "images:/a.png"),
    )
    assert json.loads(json.dumps(found.to_dict()))["reasons"][0] == {
        "reason": "new",
        "detail": "",
        "count": 2,
        "example": "images:/d.png",
    }


def test_nothing_to_do_has_no_reasons() -> None:
    shelf = Shelf()
    found = summary(shelf, {"a.png": "1"}, context_of(shelf, {"a.png": "1"}))
    assert (found.mode, found.total, found.run, found.skipped, found.reasons) == ("reuse", 1, 0, 1, ())
    assert "1 skipped" in found._repr_html_()
    assert "<table>" not in found._repr_html_()


def test_results_that_are_known_are_counted() -> None:
    shelf = Shelf()
    before = context_of(shelf, {"a.png": "1"})
    bound = {"images": binding("images", shelf.tree({"a.png": "2"})), "model": binding("model", shelf.tree({"m": "1"}))}
    [datum] = plan_job(pipeline(NODE), bound, None, shelf.open).datums()
    known = shelf.raw({datum.key + datum.fingerprint: msgspec.msgpack.encode([b"origin00", []])})
    found = summary(shelf, {"a.png": "2"}, msgspec.structs.replace(before, s=known))
    assert (found.run, found.known, found.skipped, found.removed) == (0, 1, 1, 0)


def test_no_datums_have_no_reasons() -> None:
    assert summary(Shelf(), {}).reasons == ()


def test_html_is_escaped() -> None:
    found = summary(Shelf(), {"<b>.png": "1"}, why=(Why(Reason.CODE_CHANGED, "<lambda>(), dag.py:1"),))
    assert "<lambda>" not in found._repr_html_()
    assert "&lt;b&gt;.png" in found._repr_html_()


def test_keys_are_said_as_people_write_names() -> None:
    node = cross(
        files("images", "/*", name="im"),
        files("model"),
        values(C=[0.5]),
        array("scenes", "/ndvi", name="x"),
        join(a=files("reads", "/{n}.1"), b=files("reads", "/{n}.2"), outer=True),
        group(files("days", "/{shop}/*"), by="shop"),
    )
    key = b"7/\x000.5\0c/0/1\0s\x0001\0s.2\0north"
    order = ("im", "C", "x", "a", "b", "days")
    assert describe_key(key, node, order) == "images:/7/ C=0.5 scenes:/ndvi/c/0/1 reads:/s.2 shop=north"
    assert describe_key(b"", files("model"), ()) == ""
    assert describe_key(b"a\0b", files("images", "/*"), ("images",)) == "a b"
