"""Small descriptions that carry the hash of their own bytes, so that a damaged one is not believed.

The last field of such a struct is `check`: the hash of the encoded bytes with zeros in its place. Earlier versions
wrote none: bytes without it are believed, unless they hold a field that this version does not know, which may be a
damaged `check`. What is parsed has none: it was compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from .digest import DIGEST_SIZE, digest
from .errors import CorruptError

T = TypeVar("T", bound=msgspec.Struct)

_NO_DIGITS = "0" * 2 * DIGEST_SIZE
_NO_BYTES = bytes(DIGEST_SIZE)


def encode_json(body: msgspec.Struct, lay_out: Callable[[bytes], bytes] = lambda raw: raw) -> bytes:
    """Return a struct with a field `check` as JSON that carries its hash.

    Parameters
    ----------
    body
        What to encode.
    lay_out
        Makes JSON easier to read for people.
    """

    def encode(check: str) -> bytes:
        return lay_out(msgspec.json.encode(msgspec.structs.replace(body, check=check)))

    return encode(digest(encode(_NO_DIGITS)).hex())


def decode_json(raw: bytes, kind: type[T], what: str) -> T:
    """Parse what `encode_json` made.

    Raises
    ------
    CorruptError
        It is damaged.
    """
    try:
        body = msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptError(f"{what} is damaged: {error}") from error
    compare_json(raw, body.check, kind, what)  # type: ignore[attr-defined]
    return msgspec.structs.replace(body, check="")


def compare_json(raw: bytes, check: str, kind: type[msgspec.Struct], what: str) -> None:
    """Compare the bytes of a JSON object with the hash that it carries.

    Raises
    ------
    CorruptError
        They are not those that were written.
    """
    try:
        fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # a name that no struct looks at
        raise CorruptError(f"{what} is damaged: {error}") from error
    made = digest(raw.replace(check.encode(), _NO_DIGITS.encode())).hex() if check else ""
    _compare(check == made, bool(check), fields, kind, what)


def encode_msgpack(body: msgspec.Struct) -> bytes:
    """Return a struct with a field `check` as msgpack that carries its hash."""
    raw = msgspec.msgpack.encode(msgspec.structs.replace(body, check=_NO_BYTES))
    return msgspec.msgpack.encode(msgspec.structs.replace(body, check=digest(raw)))


def decode_msgpack(raw: bytes, kind: type[T], what: str) -> T:
    """Parse what `encode_msgpack` made.

    Raises
    ------
    CorruptError
        It is damaged.
    """
    try:
        fields = msgspec.msgpack.decode(raw, type=dict[str, msgspec.Raw])
        body = msgspec.msgpack.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptError(f"{what} is damaged: {error}") from error
    check: bytes = body.check  # type: ignore[attr-defined]
    made = digest(raw.replace(check, _NO_BYTES)) if check else b""
    _compare(check == made, bool(check), fields, kind, what)
    return msgspec.structs.replace(body, check=b"")


def _compare(same: bool, checked: bool, fields: dict[str, msgspec.Raw], kind: type[msgspec.Struct], what: str) -> None:
    if not same:
        raise CorruptError(f"{what} is damaged: its bytes do not hash to what it says")
    unknown = set(fields) - set(kind.__struct_fields__)
    if not checked and unknown:
        raise CorruptError(f"{what} is damaged: it has {', '.join(sorted(unknown))} and no check")
