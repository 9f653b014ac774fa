"""Ends a reply at a text that must not be in it, for models that can't do it themselves."""

from attrs import define, field


@define
class Stops:
    """Takes a reply piece by piece and holds back what may be the beginning of a stop."""

    stops: tuple[str, ...]
    hit: bool = field(default=False, init=False)
    _held: str = field(default="", init=False)

    def feed(self, text: str) -> str:
        """Return what is surely part of the reply. After a `hit`, nothing more is."""
        if not self.stops:
            return text
        text = self._held + text
        places = [place for stop in self.stops if stop and (place := text.find(stop)) >= 0]
        if places:
            self.hit = True
            self._held = ""
            return text[: min(places)]
        keep = self._beginning_at_end(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def end(self) -> str:
        """Return what was held back: the reply has ended, so it was no stop."""
        held, self._held = self._held, ""
        return held

    def _beginning_at_end(self, text: str) -> int:
        """How many characters at the end of `text` are the beginning of a stop, at most."""
        longest = max(map(len, self.stops)) - 1
        for size in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-size:]) for stop in self.stops):
                return size
        return 0
