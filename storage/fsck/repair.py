"""Mend a store: put back what is damaged or missing, and take out what nobody has.

In this order, each step safe to be interrupted and done again:

1. Ledger entries, from a clone (`put_back.py`); without a whole ledger nothing else can be told.
2. A `damage` record names what was found, before anything is touched.
3. What can be had elsewhere (`salvage.py`) takes its place, verified; a copy of the damaged object goes to
   ``quarantine/`` first. What comes back may show more that is missing below it: again.
4. What nobody has is taken out (`condemn.py`), so that nobody relies on it.
5. Files whose content is lost and that a pipeline made are made again, where the caller can do that (`Rederive`), and
   count only if they are byte for byte what they were.
6. A `repair` record names what is whole again.

History is never rewritten: commits stay what they are, and one whose content is lost says so when it is read.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..backend import Backend
from ..digest import digest, from_hex, short
from ..errors import NotFoundError
from ..ledger.heads import SeenHead
from ..ledger.ledger import Ledger, entry_key
from ..objects.compression import compress
from ..objects.condemned import plain_key
from ..objects.fold import is_fold_key
from ..objects.node import NODE_PREFIX, NodeStore
from ..objects.object_store import Objects
from ..objects.pack import read_footer
from ..objects.value import decode_value
from ..objects.writer import Written
from ..records import Damage, Record, Repair
from ..state import State
from ..trees.prolly import Tree
from .check import Checked, conclude, examine
from .condemn import Condemnation
from .mirrors import Mirror, sound
from .put_back import plan_ledger
from .report import Problem, Progress
from .retrace import Retrace
from .salvage import Salvage
from .touched import FileRef

logger = logging.getLogger(__name__)

QUARANTINE = "quarantine"
_ROUNDS = 64
_RECORDED_TOGETHER = 2_000

NOT_REPRODUCIBLE = "not reproducible"
"""Why a file that came out otherwise than it was is refused."""

Rederive = Callable[[Sequence[FileRef]], Iterator[tuple[FileRef, Path | str]]]
"""Makes files of commits again: given which, yields each with a local copy of its content, which is needed until the
next one is asked for, or with the reason why it cannot be made, in any order; one that is equal to another may be left
out. Content is compared with what the commit says, byte for byte: it need not be trusted."""


class Parts(Protocol):
    """A store, as far as a repair needs one."""

    backend: Backend
    nodes: NodeStore
    ledger: Ledger
    objects: Objects


@dataclass(frozen=True, slots=True)
class Mended:
    """What a repair did."""

    found: tuple[Problem, ...]
    """What was wrong."""
    mended: tuple[tuple[str, str], ...]
    """(object, how) of what is whole again."""
    remade: tuple[tuple[str, str], ...]
    """(file, how) of files that were made again."""
    lost: tuple[Problem, ...]
    """What is still wrong, with all that it touches."""
    quarantined: tuple[str, ...]
    """Keys below ``quarantine/`` with what was taken out."""
    refused: tuple[tuple[str, str], ...] = ()
    """(file or key of a node, why) of what could not be made again: `not reproducible`, say."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong any more."""
        return not self.lost

    def with_index(self, file: str, wrong: str) -> Mended:
        """Return the same with a local index that was made anew."""
        return dataclasses.replace(
            self,
            found=(*self.found, Problem("derived", file, wrong)),
            mended=(*self.mended, (file, "made anew from the ledger")),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data with stable keys."""
        return {
            "ok": self.ok,
            "found": [problem.to_dict() for problem in self.found],
            "mended": [{"object": key, "how": how} for key, how in self.mended],
            "remade": [{"file": name, "how": how} for name, how in self.remade],
            "refused": [{"file": name, "why": why} for name, why in self.refused],
            "lost": [problem.to_dict() for problem in self.lost],
            "quarantined": list(self.quarantined),
        }


def repair(
    store: Parts,
    *,
    mirrors: Sequence[Mirror] = (),
    rederive: Rederive | None = None,
    seen: SeenHead | None = None,
    progress: Progress | None = None,
) -> Mended:
    """Check a store and mend what can be mended.

    Parameters
    ----------
    mirrors
        Where else to look.
    rederive
        Makes outputs of pipelines again.
    seen
        The last ledger entry that this machine saw.
    progress
        Hears how far the check is.

    Raises
    ------
    ReadOnlyError
        The store takes no writes.
    BackendError
        The medium failed. What was done so far is done; the same call goes on.

    Notes
    -----
    Reads the whole store once, its tree nodes once more after something was mended, and all of it again after something
    had to be taken out.
    """
    return _Repair(store, mirrors, rederive, seen, progress).run()


class _Repair:
    def __init__(
        self,
        store: Parts,
        mirrors: Sequence[Mirror],
        rederive: Rederive | None,
        seen: SeenHead | None,
        progress: Progress | None,
    ) -> None:
        self._store = store
        self._backend = store.backend
        self._mirrors = mirrors
        self._rederive = rederive
        self._seen = seen
        self._progress = progress
        self._found: dict[str, Problem] = {}
        self._mended: dict[str, str] = {}
        self._remade: dict[str, str] = {}
        self._refused: dict[str, str] = {}
        self._quarantined: dict[str, None] = {}
        self._written = Written()

    def run(self) -> Mended:
        checked = self._examine()
        checked = self._put_back_ledger(checked)
        if _ledger(checked):
            return self._done(checked)
        if _bad(checked):
            checked = self._replace(checked)
        if _bad(checked):
            checked = self._retrace(checked)
        if _bad(checked):
            checked = self._condemn(checked)
        if _bad(checked) and self._rederive is not None:
            checked = self._make_again(checked, self._rederive)
        self._record_repair(checked)
        return self._done(checked)

    def _examine(self) -> Checked:
        checked = examine(self._backend, seen=self._seen, progress=self._progress)
        self._note(checked)
        return checked

    def _again(self, checked: Checked) -> Checked:
        nodes = NodeStore(self._backend, cache_nodes=64)
        checked = conclude(self._backend, nodes, checked.history, checked.contents, checked.findings)
        self._note(checked)
        return checked

    def _note(self, checked: Checked) -> None:
        for problem in checked.report.problems:
            self._found.setdefault(problem.object, problem)

    def _done(self, checked: Checked) -> Mended:
        return Mended(
            found=tuple(sorted(self._found.values())),
            mended=tuple(sorted(self._mended.items())),
            remade=tuple(sorted(self._remade.items())),
            refused=tuple(sorted(self._refused.items())),
            lost=checked.report.problems,
            quarantined=tuple(self._quarantined),
        )

    # --- the ledger ---------------------------------------------------------------------------------------------------

    def _put_back_ledger(self, checked: Checked) -> Checked:
        while True:
            problems = _ledger(checked)
            if not problems:
                return checked
            numbers = [int(problem.object.rpartition("/")[2].removesuffix(".json")) for problem in problems]
            planned = plan_ledger(self._backend, self._mirrors, min(*numbers, checked.history.state.n + 1), self._seen)
            if planned is None:
                return checked
            entries, where = planned
            # The last one first: until the first is there, everybody still sees a ledger that is broken.
            for n in sorted(entries, reverse=True):
                self._put(entry_key(n), entries[n], f"from {where}")
            checked = self._examine()

    # --- what is elsewhere --------------------------------------------------------------------------------------------

    def _replace(self, checked: Checked) -> Checked:
        tried: set[str] = set()
        for _ in range(_ROUNDS):
            todo = [problem for problem in _bad(checked) if problem.object not in tried]
            if not todo:
                break
            self._record_damage([problem.object for problem in todo])
            tried.update(problem.object for problem in todo)
            if not self._replace_some(checked, todo):
                break
            checked = self._again(checked)
        return checked

    def _replace_some(self, checked: Checked, todo: Sequence[Problem]) -> bool:
        salvage = Salvage(self._backend, checked, self._mirrors)
        unused = {key for key in checked.contents.listed["index"] if key not in checked.reached.keys}
        any_ = False
        # Indexes last: they may follow from packs that are mended here.
        for problem in sorted(todo, key=lambda problem: problem.object.startswith("index/")):
            key = problem.object
            if key in unused:
                self._quarantine(key)
                self._backend.delete_many([key])
                self._mended[key] = "nothing needs it"
                self._forget(checked, key)
                any_ = True
                continue
            found = salvage.find(key)
            if found is None or sound(self._backend, key) == found.body:
                continue
            if key.startswith("ledger/ckpt/"):
                self._put_state_tree(checked, key)
            self._put(key, found.body, found.how)
            self._forget(checked, key)
            self._learn(checked, key)
            any_ = True
        return any_

    def _put_state_tree(self, checked: Checked, key: str) -> None:
        """Make sure of the nodes of a checkpoint before it is written."""
        history = checked.history
        number = int(key.rpartition("/")[2].removesuffix(".mpz"))
        for n, _, root in history.checkpoints:
            if n == number and history.nodes is not None:
                raws = [history.nodes.own(name) for name in Tree(history.nodes, root).walk_nodes()]
                self._store.nodes.put_many([raw for raw in raws if raw is not None])
                self._backend.sync(self._store.nodes.take_written())

    def _forget(self, checked: Checked, key: str) -> None:
        checked.findings.found.pop(key, None)

    def _learn(self, checked: Checked, key: str) -> None:
        """Take what was put for what is there."""
        contents = checked.contents
        if key.startswith(("nodes/", "objects/")):
            places = contents.places.setdefault(plain_key(key), [])
            if key not in places:
                places.append(key)
        elif key.endswith((".pack", ".seg")):
            contents.broken.pop(key, None)
            for name, at in read_footer(self._backend, key).locations(key):
                contents.locations.setdefault(name, at)
                text = name.hex()
                if not contents.places.get(f"objects/{text[:2]}/{text[2:]}"):
                    self._forget(checked, f"objects/{text[:2]}/{text[2:]}")

    def _put(self, key: str, body: bytes, how: str) -> None:
        self._quarantine(key)
        self._backend.put(key, body)
        self._backend.sync([key])
        self._mended[key] = how
        logger.info("%s: %s", key, how)

    def _quarantine(self, key: str) -> None:
        """Keep a copy of a damaged object, so that whoever wants to can look at it."""
        try:
            body = self._backend.get(key)
        except NotFoundError:
            return
        place = f"{QUARANTINE}/{key}.{short(digest(body))}"
        self._backend.put_if_absent(place, body)
        self._backend.sync([place])
        self._quarantined[place] = None

    # --- what else says it --------------------------------------------------------------------------------------------

    def _retrace(self, checked: Checked) -> Checked:
        """Make lost nodes of jobs' trees again: one may be what another one is made from."""
        for _ in range(_ROUNDS):
            keys = {problem.object for problem in _bad(checked) if problem.object.startswith(f"{NODE_PREFIX}/")}
            if not keys:
                break
            names = {from_hex(plain_key(key)[len(NODE_PREFIX) + 1 :].replace("/", "")): key for key in keys}
            retrace = Retrace(self._backend, NodeStore(self._backend, cache_nodes=64), checked.history.state)
            found = list(retrace.find(names))
            for raw in found:
                key = names[digest(raw)]
                self._put(key, compress(raw), "made anew from what else the store says of its job")
                self._forget(checked, key)
                self._learn(checked, key)
            if not found:
                break
            checked = self._again(checked)
        for problem in _bad(checked):
            if problem.object.startswith(f"{NODE_PREFIX}/"):
                self._refused[problem.object] = "no job's results or other trees say what was in it"
        return checked

    # --- what is nowhere ----------------------------------------------------------------------------------------------

    def _condemn(self, checked: Checked) -> Checked:
        listed = checked.contents.listed
        published = set(checked.history.state.packs())
        objects, packs = [], []
        indexes = False
        for problem in _bad(checked):
            key = problem.object
            folder = key.partition("/")[0]
            if folder in ("nodes", "objects"):
                if key in listed[folder]:
                    objects.append(key)
            elif key in published:
                packs.append(key)
            elif folder == "packs" and key in listed[folder]:
                objects.append(key)
            elif folder == "results":
                self._take_out_result(checked, key)
            elif folder == "index":
                indexes = True
        for key in (*objects, *packs):
            self._quarantine(key)
        if not (objects or packs or indexes):
            return self._again(checked)
        condemnation = Condemnation(self._backend, self._store.nodes, self._store.ledger, checked, objects, packs)
        gone = condemnation.carry_out()
        for key in gone:
            for keys in listed.values():
                keys.pop(key, None)
            places = checked.contents.places.get(plain_key(key), [])
            if key in places:
                places.remove(key)
        # The store is another one now: packs and indexes have other names, and what went is missing, not damaged.
        return self._examine_named(checked)

    def _take_out_result(self, checked: Checked, key: str) -> None:
        """A segment that nothing published: without it the job computes its datums again, unless a fold counts it."""
        folder = "/".join(key.split("/")[:2])
        if is_fold_key(key):
            self._quarantine(key)
            self._backend.delete_many([key])
            self._forget(checked, key)
            self._mended[key] = "taken out; what it says follows from the job's segments"
        elif key.endswith(".seg") and not any(
            name.startswith(f"{folder}/fold-") for name in checked.contents.listed["results"]
        ):
            self._quarantine(key)
            self._backend.delete_many([key])
            self._forget(checked, key)
            self._mended[key] = "taken out; its datums are computed again"

    def _examine_named(self, checked: Checked) -> Checked:
        """Check again, whole: what was taken out changed what the ledger names."""
        before = {problem.object for problem in _bad(checked)}
        checked = self._examine()
        still = {problem.object for problem in checked.report.problems}
        for key in before - still:
            self._mended.setdefault(key, "taken out; what was sound in it is stored anew")
        return checked

    # --- what can be made again ---------------------------------------------------------------------------------------

    def _make_again(self, checked: Checked, rederive: Rederive) -> Checked:
        wanted = [file for files in checked.touched.files.values() for file in files if file.job]
        if not wanted:
            return checked
        writer = self._store.objects.writer()
        try:
            for file, made in rederive(list(dict.fromkeys(wanted))):
                name = f"{file.commit}:{file.path}"
                if isinstance(made, str):
                    self._refused[name] = made
                elif writer.put_file(made) == decode_value(file.value):
                    self._remade[name] = "made again by its datum"
                else:
                    self._refused[name] = NOT_REPRODUCIBLE
            self._written = writer.flush()
            if self._remade:
                keys = writer.take_keys()
                self._store.ledger.append(
                    [Repair(objects=(), packs=self._written.packs, index=self._written.index)], sync=keys
                )
        finally:
            writer.close()
        if not self._remade:
            return checked
        before = {problem.object for problem in _bad(checked)}
        checked = self._examine()
        # What one of them made may have been all that another one lacked.
        lost = {f"{file.commit}:{file.path}" for files in checked.touched.files.values() for file in files}
        self._refused = {
            name: why for name, why in self._refused.items() if name in lost or name.startswith(NODE_PREFIX)
        }
        for key in before - {problem.object for problem in checked.report.problems}:
            self._mended[key] = "made again"
        return checked

    # --- the record ---------------------------------------------------------------------------------------------------

    def _record_damage(self, keys: Sequence[str]) -> None:
        def build(state: State, part: Sequence[str]) -> Sequence[Record]:
            new = tuple(key for key in part if key not in state.damaged())
            return [Damage(objects=new)] if new else []

        for part in _parts(keys):
            self._store.ledger.try_append(lambda state, part=part: build(state, part))  # type: ignore[misc]

    def _record_repair(self, checked: Checked) -> None:
        bad = {problem.object for problem in checked.report.problems}

        def build(state: State, part: Sequence[str]) -> Sequence[Record]:
            damaged = state.damaged()
            whole = tuple(key for key in part if key in damaged and key not in bad)
            return [Repair(objects=whole)] if whole else []

        for part in _parts(sorted(self._store.ledger.refresh().damaged())):
            self._store.ledger.try_append(lambda state, part=part: build(state, part))  # type: ignore[misc]


def _bad(checked: Checked) -> list[Problem]:
    return [problem for problem in checked.report.problems if problem.kind != "link"]


def _ledger(checked: Checked) -> list[Problem]:
    return [problem for problem in checked.report.problems if problem.kind == "ledger"]


def _parts(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), _RECORDED_TOGETHER):
        yield keys[start : start + _RECORDED_TOGETHER]
