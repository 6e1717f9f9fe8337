"""One object of a specification file, read field by field.

What `table` does not know is refused with the nearest name, what it refuses with the reason. Both `camelCase`
and `snake_case` are understood; messages use the name as written.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence

from ...storage.errors import ErrorCode, InvalidInputError
from .table import FORMER, ignored, names, refused


class Fields:
    """The fields of one object.

    Parameters
    ----------
    data
        The object as parsed; anything but a mapping with text keys is refused.
    where
        For messages: ``train.json: pipeline 'model': transform``.
    kind
        Which object of `table` it is: unknown fields are refused, and so are those that are listed as refused.
    """

    def __init__(self, data: object, where: str, kind: str) -> None:
        known = names(kind)
        self.kind = kind
        self.where = where
        if not isinstance(data, Mapping):
            raise self.bad(f"expected an object, got {shown(data)}")
        self._values: dict[str, object] = {}
        self._written: dict[str, str] = {}
        for written, value in data.items():
            name = snake_case(written) if isinstance(written, str) else str(written)
            if name not in known:
                raise self._unknown(str(written), known)
            if name in self._values:
                raise self.bad(f"field {self._written[name]!r} is given twice (also as {written!r})")
            self._values[name] = value
            self._written[name] = str(written)
        for name, why in refused(kind).items():
            if name in self.given():
                raise self.unsupported(name, why)

    def without_meaning(self) -> list[str]:
        """Fields that are given and mean nothing here, as the file spells them."""
        return [self.written(name) for name in self.given() if name in ignored(self.kind)]

    def given(self) -> list[str]:
        """Names (snake_case) of the fields that hold something; null, false, 0 and empty count as not given."""
        return [name for name, value in self._values.items() if value not in (None, False, 0, "", [], {})]

    def written(self, name: str) -> str:
        """A field's name as the file spells it."""
        return self._written.get(name, name)

    def value(self, name: str) -> object:
        """A field as parsed; None if it is missing or null."""
        return self._values.get(name)

    def text(self, name: str) -> str:
        """A text; empty if it is missing."""
        value = self._values.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.bad(f"{self.written(name)}: expected a text, got {shown(value)}", hint="put it in quotes")
        return value

    def required_text(self, name: str) -> str:
        """A text that must be there."""
        value = self.text(name)
        if not value:
            raise self.bad(f"required field {name!r} is missing")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts; empty if it is missing."""
        value = self._values.get(name)
        if value is None:
            return ()
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise self.bad(f"{self.written(name)}: expected a list of texts, got {shown(value)}")
        for item in value:
            if not isinstance(item, str):
                raise self.bad(f"{self.written(name)}: expected texts, got {shown(item)}", hint="put it in quotes")
        return tuple(value)

    def integers(self, name: str) -> tuple[int, ...]:
        """A list of whole numbers; empty if it is missing."""
        value = self._values.get(name)
        if value is None:
            return ()
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise self.bad(f"{self.written(name)}: expected a list of whole numbers, got {shown(value)}")
        return tuple(self._integer(name, item) for item in value)

    def integer(self, name: str, *, least: int = 0) -> int:
        """A whole number; 0 if it is missing."""
        value = self._values.get(name)
        number = 0 if value is None else self._integer(name, value)
        if number < least:
            raise self.bad(f"{self.written(name)}: expected {least} or more, got {number}")
        return number

    def flag(self, name: str) -> bool:
        """True or false; false if it is not given."""
        value = self.value(name)
        if value is not None and not isinstance(value, bool):
            raise self.bad(f"{self.written(name)}: expected true or false, got {shown(value)}")
        return bool(value)

    def _integer(self, name: str, value: object) -> int:
        # Pachyderm's JSON allows numbers in quotes.
        if isinstance(value, str) and re.fullmatch(r"-?\d+", value):
            return int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.bad(f"{self.written(name)}: expected a whole number, got {shown(value)}")
        return value

    def items(self, name: str) -> list[object]:
        """A list; empty if it is missing."""
        value = self._values.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.bad(f"{self.written(name)}: expected a list, got {shown(value)}")
        return value

    def variables(self, name: str) -> dict[str, str]:
        """Names to texts; empty if it is missing."""
        value = self._values.get(name)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise self.bad(f"{self.written(name)}: expected names and texts, got {shown(value)}")
        for key, item in value.items():
            if not isinstance(key, str) or not key or "=" in key or "\0" in key:
                raise self.bad(f"{self.written(name)}: {key!r} cannot be the name of a variable")
            if not isinstance(item, str):
                raise self.bad(
                    f"{self.written(name)}.{key}: expected a text, got {shown(item)}", hint="put it in quotes"
                )
        return dict(value)

    def scalars(self, name: str) -> dict[str, str | int | float | bool]:
        """Names to plain values; empty if it is missing."""
        value = self._values.get(name)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise self.bad(f"{self.written(name)}: expected names and values, got {shown(value)}")
        found: dict[str, str | int | float | bool] = {}
        for key, item in value.items():
            if not isinstance(key, str) or not key.isidentifier():
                raise self.bad(f"{self.written(name)}: {key!r} cannot be the name of a variable")
            if not isinstance(item, str | int | float | bool):
                raise self.bad(f"{self.written(name)}.{key}: expected a text, a number or a flag, got {shown(item)}")
            found[key] = item
        return found

    def bad(self, message: str, *, hint: str | None = None) -> InvalidInputError:
        """Make the error for something wrong in here."""
        return InvalidInputError(f"{self.where}: {message}", code=ErrorCode.BAD_SPEC, hint=hint)

    def unsupported(self, name: str, why: str = "") -> InvalidInputError:
        """Make the error for a field that is understood, but not supported."""
        return InvalidInputError(
            f"{self.where}: {self.written(name)} is not supported", code=ErrorCode.UNSUPPORTED, hint=why or None
        )

    def _unknown(self, written: str, known: Collection[str]) -> InvalidInputError:
        near = difflib.get_close_matches(snake_case(written), known, 1, 0.5)
        camel = written != snake_case(written)
        hint = None
        if near:
            spelled = camel_case(near[0]) if camel else near[0]
            hint = f"did you mean {spelled!r}?"
        former = FORMER.get(self.kind, {}).get(snake_case(written))
        if former is not None:
            return self.bad(f"unknown field {written!r}", hint=f"a field of Pachyderm 1, now {former}")
        return self.bad(f"unknown field {written!r}", hint=hint or f"there are {', '.join(sorted(known))}")


def snake_case(name: str) -> str:
    """Spell a field's name with underscores.

    Examples
    --------
    >>> snake_case("acceptReturnCode"), snake_case("s3Out")
    ('accept_return_code', 's3_out')
    """
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()


def camel_case(name: str) -> str:
    """Spell a field's name as Pachyderm's JSON does.

    Examples
    --------
    >>> camel_case("accept_return_code")
    'acceptReturnCode'
    """
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def shown(value: object) -> str:
    """Describe a wrong value in a few words."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
