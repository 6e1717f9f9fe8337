"""Laying out datums, many at a time: what is small is read together, what needs no folder gets none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from ...storage.errors import DmlpipeError
from ...storage.objects.value import Value, decode_value
from ..child.berths import Berths
from ..child.wire import Given, Payload
from ..job import Datum, PythonTransform
from .files import COPIED_MAX_BYTES, ContentStore
from .job_inputs import JobInputs
from .layout import UNUSED, Layout, resident
from .prepared import Prepared


class Materializer:
    """Lays out datums for one slot. One thread at a time.

    Parameters
    ----------
    folder
        Private to the slot; exists.
    """

    def __init__(self, store: ContentStore, folder: Path) -> None:
        self._store = store
        self._berths = Berths(str(folder))

    def prepare(self, job: JobInputs, datums: Sequence[tuple[Datum, int]], *, by_child: bool = False) -> list[Prepared]:
        """Lay out datums (each with its try's number); what is small is read together.

        Parameters
        ----------
        by_child
            Leave the folders of those that have small files alone to the child.

        Raises
        ------
        DmlpipeError
            The store does not give an input's content. Nothing is left laid out.
        """
        contents = self._read_small(job, [datum for datum, _ in datums])
        made: list[Prepared] = []
        try:
            for datum, attempt in datums:
                prepared = _without_folder(job, datum, attempt, contents, by_child=by_child)
                made.append(prepared or Layout(self._store, self._berths, job, datum, attempt, contents).make())
        except DmlpipeError:
            for prepared in made:
                prepared.remove()
            raise
        return made

    def _read_small(self, job: JobInputs, datums: Sequence[Datum]) -> dict[bytes, bytes]:
        wanted: dict[bytes, Value] = {}
        for datum in datums:
            for declared, item in zip(job.varying, datum.items, strict=True):
                if item.kind == "f" and item.value not in wanted and not (declared.lazy or declared.empty):
                    value = decode_value(item.value)
                    if value.size <= COPIED_MAX_BYTES:
                        wanted[item.value] = value
        return dict(zip(wanted, self._store.objects.read_many(list(wanted.values())), strict=True))


def _without_folder(
    job: JobInputs, datum: Datum, attempt: int, contents: Mapping[bytes, bytes], *, by_child: bool
) -> Prepared | None:
    """Prepare a datum that needs no folder here: small files, and values. None: it needs one."""
    transform = job.spec.transform
    unlaid = by_child and job.in_folders
    if not isinstance(transform, PythonTransform) or (transform.result == "out" and not unlaid):
        return None
    given: dict[str, Given] = {}
    captures: dict[str, str] = {}
    for declared, form, item in zip(job.varying, job.forms, datum.items, strict=True):
        if item.kind == "v":
            given[declared.name] = Given("value", value=msgspec.json.decode(item.path))
        elif item.kind == "f" and not form:
            given[declared.name] = UNUSED
        elif (
            item.kind == "f"
            and form == "bytes"
            and not declared.empty
            and (content := contents.get(item.value)) is not None
        ):
            given[declared.name] = Given("bytes", data=content)
        elif unlaid and form == "path" and item.kind == "f" and (content := contents.get(item.value)) is not None:
            given[declared.name] = Given("file", item.path.strip("/"), content)
        elif unlaid and item.kind == "n":
            given[declared.name] = _NONE
        else:
            return None
        if item.captures:
            captures = captures | item.captures if captures else item.captures
    held = resident(job, datum) if job.resident else ""
    payload = Payload(datum.fingerprint.hex(), given, captures, "", "", {}, attempt, held, {}, unlaid)
    return Prepared(payload, None, "", None)


_NONE = Given("none")
