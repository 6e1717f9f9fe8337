"""A share as people type it: `5%`, `0.5%`."""

from __future__ import annotations

import click


class Percent(click.ParamType[float]):
    """Converts `P%` to a fraction, over 0 and at most 1."""

    name = "percent"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the fraction; refuses what is none."""
        if isinstance(value, float):
            return value
        try:
            fraction = float(str(value).removesuffix("%")) / 100
        except ValueError:
            fraction = 0.0
        if not str(value).endswith("%") or not 0 < fraction <= 1:
            self.fail(f"{value!r}: expected more than 0% and at most 100%, such as 5%", param, ctx)
        return fraction


PERCENT = Percent()
