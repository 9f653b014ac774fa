"""`make bench`: what the hub costs, as ratios to a reference that is measured in the same run.

Each module of this package with a function `run(quick: bool) -> list[Row]` is a benchmark; it
is found by being there. Times of a shared machine say little, so nothing here is asserted:
a benchmark fails only if it could not measure. What the numbers mean: docs/benchmarks.md.
"""

from typing import NamedTuple


class Row(NamedTuple):
    """One line of the table.

    Attributes:
        name: what was measured, as `benchmark: what, at what`.
        value: the measured number, in `unit`.
        reference: the same of what it is compared to, or None.
        ratio: `value / reference`, or None where there is no reference.
        goal: the bound of the ratio, or of the value where there is no ratio; or None.
        unit: of value and reference.
        at_least: the goal is a lower bound instead of an upper one.
        note: what else a reader of the table should know.
        trusted: false if too much else went on for a verdict.
    """

    name: str
    value: float
    reference: float | None = None
    ratio: float | None = None
    goal: float | None = None
    unit: str = ""
    at_least: bool = False
    note: str = ""
    trusted: bool = True

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without a goal or where nobody can tell."""
        if self.goal is None or not self.trusted:
            return None
        shown = self.value if self.ratio is None else self.ratio
        return shown >= self.goal if self.at_least else shown <= self.goal
