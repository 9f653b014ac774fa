"""Reads tables of TOML key by key, and says in plain words what is wrong with them."""

from typing import Any, TypeVar

from llm.provider import SetupError

T = TypeVar("T")

KINDS: dict[type, str] = {
    str: "text in quotes",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    dict: "a table",
    list: "a list of tables",
}


class Table:
    """A table; what nobody has read by the `end` is a slip of whoever wrote it."""

    def __init__(self, where: str, values: dict[str, Any]) -> None:
        self.where = where
        self._values = dict(values)
        self._known: list[str] = []

    def get(self, key: str, kind: type[T], default: T) -> T:
        """Return the value of a key; `kind` float takes whole numbers as well.

        Raises:
            SetupError: it is of another kind.

        """
        self._known.append(key)
        value = self._values.pop(key, default)
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind and value is not default:
            raise SetupError(f"{self.where}: {key} must be {KINDS[kind]}.")
        return value

    def has(self, key: str) -> bool:
        """Whether it is there, and not read yet."""
        return key in self._values

    def count(self, key: str) -> int | None:
        """Return a whole number above 0; None if it is not there."""
        given = self.has(key)
        value = self.get(key, int, 0)
        if given and value <= 0:
            raise SetupError(f"{self.where}: {key} must be a whole number above 0.")
        return value if given else None

    def amount(self, key: str) -> float | None:
        """Return a number, 0 or more; None if it is not there."""
        given = self.has(key)
        value = self.get(key, float, 0.0)
        if given and not 0 <= value < float("inf"):
            raise SetupError(f"{self.where}: {key} must be a number, 0 or more.")
        return value if given else None

    def table(self, key: str) -> "Table":
        """Return the table of a key; an empty one if it is not there."""
        return Table(f"{self.where}, {key}", self.get(key, dict, {}))

    def tables(self, key: str) -> list[dict[str, Any]]:
        """Return the list of tables of a key (`[[key]]`)."""
        found: list[Any] = self.get(key, list, [])
        if not all(isinstance(one, dict) for one in found):
            raise SetupError(f"{self.where}: {key} must be {KINDS[list]}.")
        return found

    def end(self) -> None:
        """Refuse what was not read."""
        for key in self._values:
            known = ", ".join(self._known)
            raise SetupError(f"{self.where}: “{key}” is unknown. Known are {known}.")
