"""How much room the request bodies in flight may take."""

from __future__ import annotations

import threading


class Bodies:
    """A budget in bytes over the request bodies in flight of one worker."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = self._left = size_bytes
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """How much is taken."""
        return self._size_bytes - self._left

    def take(self, size_bytes: int) -> bool:
        """Take a share, or return false where there is not enough left."""
        with self._lock:
            if size_bytes > self._left:
                return False
            self._left -= size_bytes
            return True

    def give(self, size_bytes: int) -> None:
        """Give a share back."""
        with self._lock:
            self._left += size_bytes
