"""Stop strings on streamed text, for engines that are stepped in this process."""

from .thinking import held_back


class StopScanner:
    """Passes text on until the first stop string, which is cut off with all that follows."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        """`stops`: the strings; empty ones are ignored."""
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped = False
        """Whether a stop string has come."""

    def feed(self, piece: str) -> str:
        """Return what can be passed on; the beginning of what may be a stop string is held back."""
        if self.stopped:
            return ""
        if not self._stops:
            return piece
        buffer = self._held + piece
        found = [at for at in (buffer.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self.stopped, self._held = True, ""
            return buffer[: min(found)]
        keep = held_back(buffer, self._stops)
        self._held = buffer[len(buffer) - keep :]
        return buffer[: len(buffer) - keep]

    def finish(self) -> str:
        """Return what was held back, now that no more text comes."""
        held, self._held = self._held, ""
        return held
