from __future__ import annotations

import itertools
import os

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.storage.backend.memory import MemoryBackend
from dmlpipe.storage.digest import digest
from dmlpipe.storage.errors import CorruptError, DmlpipeError, FormatError, InvalidInputError, NotFoundError
from dmlpipe.storage.ledger.heads import SeenHead
from dmlpipe.storage.objects.node import NodeStore
from dmlpipe.storage.objects.value import Inline
from dmlpipe.storage.provenance.proof import MAGIC, Proof, parse_head, verify
from dmlpipe.storage.store import Store
from dmlpipe.storage.trees.prolly import Tree, build
from dmlpipe.storage.trees.tree_node import EMPTY
from dmlpipe.storage.trees.tree_proof import check_proof

_count = itertools.count()


def _made() -> tuple[Store, bytes]:
    store = Store.init(f"memory://proof-{next(_count)}")
    store.put("r", *((f"f/{number}", str(number)) for number in range(20)), message="first")
    store.put("r", ("later", b"1"))
    store.create_repo("q")
    return store, store.prove("r@master^:/f/7")


STORE, PROOF = _made()


def test_a_proof_says_who_put_what_when() -> None:
    proven = verify(PROOF)
    commit = STORE["r@master^"]
    assert (proven.repo, proven.commit, proven.path, proven.value) == ("r", commit.id, "/f/7", Inline(b"7"))
    assert (proven.body.message, proven.n, proven.body) == ("first", 0, commit.body)
    state = STORE.refresh()
    assert proven.head == SeenHead(n=state.n, hash=state.chain)
    assert proven.actor == next(STORE.ledger.entries())[0].actor


def test_a_proof_is_as_good_as_a_head_that_one_trusts() -> None:
    proven = verify(PROOF)
    for entry, entry_hash in STORE.ledger.entries():
        assert proven.anchored_by(SeenHead(n=entry.n, hash=entry_hash))
    assert not proven.anchored_by(SeenHead(n=1, hash=proven.hashes[0]))
    assert not proven.anchored_by(SeenHead(n=9, hash=proven.hashes[0]))


@given(st.integers(0, len(PROOF) - 1), st.integers(1, 255))
def test_any_changed_byte_is_rejected(place: int, change: int) -> None:
    damaged = bytearray(PROOF)
    damaged[place] ^= change
    with pytest.raises(DmlpipeError):
        verify(bytes(damaged))


def _sealed(body: bytes) -> bytes:
    return MAGIC + body + digest(MAGIC + body)


@given(st.integers(0, len(PROOF) - len(MAGIC) - 33), st.integers(1, 255))
def test_who_mends_the_checksum_too_proves_nothing_else_to_whoever_knows_the_head(place: int, change: int) -> None:
    body = bytearray(PROOF[len(MAGIC) : -32])
    body[place] ^= change
    head = verify(PROOF).head
    try:
        forged = verify(_sealed(bytes(body)))
    except DmlpipeError:
        return
    # Another file of the same commit is as true; anything else needs another ledger.
    if forged.anchored_by(head):
        assert (forged.repo, forged.commit) == ("r", verify(PROOF).commit)
        assert STORE[f"r@{forged.commit}"].value(forged.path) == forged.value


@pytest.mark.parametrize("cut", [0, 3, len(MAGIC), len(MAGIC) + 5, len(PROOF) - 1])
def test_a_part_is_rejected(cut: int) -> None:
    with pytest.raises((CorruptError, FormatError)):
        verify(PROOF[:cut])


def test_parts_of_other_proofs_do_not_fit() -> None:
    good = msgspec.msgpack.decode(PROOF[len(MAGIC) : -32], type=Proof)
    other = msgspec.msgpack.decode(STORE.prove("r:/later")[len(MAGIC) : -32], type=Proof)
    replace = msgspec.structs.replace
    for forged in (
        replace(good, repo="q"),
        replace(good, nodes=other.nodes),
        replace(good, body=other.body),
        replace(good, commit=other.commit),
        replace(good, entries=other.entries),
        replace(good, entries=good.entries[:1] + good.entries[2:]),
        replace(good, entries=()),
        replace(good, path=b"f/none"),
        replace(good, v=2),
    ):
        with pytest.raises((CorruptError, FormatError)):
            verify(_sealed(msgspec.msgpack.encode(forged)))


def test_what_is_not_there_cannot_be_proven() -> None:
    with pytest.raises(NotFoundError, match="no file /f/99"):
        STORE.prove("r:/f/99")
    with pytest.raises(InvalidInputError, match="names no file"):
        STORE.prove("r")


@pytest.mark.parametrize("text", ["", "1", "1:ab", "x:" + "0" * 64, "-1:" + "0" * 64])
def test_a_head_is_a_number_and_a_hash(text: str) -> None:
    with pytest.raises(InvalidInputError, match="no head"):
        parse_head(text)


# --- of trees -----------------------------------------------------------------------------------------------------

_nodes = NodeStore(MemoryBackend("memory://proof-trees"), tree_target=4)
_keys = st.binary(min_size=1, max_size=3)


@given(st.dictionaries(_keys, st.binary(max_size=3), max_size=60), _keys)
def test_a_tree_proves_what_it_has_and_what_it_has_not(items: dict[bytes, bytes], key: bytes) -> None:
    tree = build(_nodes, sorted(items.items()))
    for wanted in [key, *list(items)[:3]]:
        nodes = tree.prove(wanted)
        assert check_proof(tree.root, wanted, nodes) == items.get(wanted)
        with pytest.raises(CorruptError):
            check_proof(tree.root, wanted, nodes[:-1])
        with pytest.raises(CorruptError):
            check_proof(tree.root, wanted, [*nodes, nodes[-1]])
        with pytest.raises(CorruptError):
            check_proof(digest(os.urandom(8)), wanted, nodes)


def test_the_empty_tree_proves_that_it_has_nothing() -> None:
    assert check_proof(EMPTY, b"k", Tree(_nodes).prove(b"k")) is None


def test_bytes_that_are_no_node_prove_nothing() -> None:
    for forged in (
        [1, 1, [b"k"], [b"x"]],
        [1, 0, [b"k"], [[b"x", 1]]],
        [1, 0, [b"k"], []],
        [1, 1, [b"k"], [[b"x", 1]]],
    ):
        raw = msgspec.msgpack.encode(forged)
        with pytest.raises(CorruptError):
            check_proof(digest(raw), b"k", [raw])
