"""Border merge: joins parts that were found block by block into regions across block borders, in pure numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Regions:
    """Parts joined into regions: a union-find that also keeps the parts of each region."""

    def __init__(self) -> None:
        """Begin with no part."""
        self._parent: dict[int, int] = {}
        self._parts: dict[int, list[int]] = {}
        self._next = 1

    def add(self) -> int:
        """Return the number of a new part, 1 or more, a region of its own."""
        number, self._next = self._next, self._next + 1
        self._parent[number] = number
        self._parts[number] = [number]
        return number

    def find(self, part: int) -> int:
        """Return the part that stands for the region of `part`."""
        root = part
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[part] != root:
            # The way is shortened: a region over thousands of blocks would else be a chain that each search walks
            # again.
            self._parent[part], part = root, self._parent[part]
        return root

    def join(self, one: int, other: int) -> None:
        """Make one region of the regions of two parts."""
        large, small = self.find(one), self.find(other)
        if large == small:
            return
        if len(self._parts[large]) < len(self._parts[small]):
            large, small = small, large
        self._parent[small] = large
        # The shorter list moves, so a part is moved at most log2(n) times, however large its region grows.
        self._parts[large] += self._parts.pop(small)

    def join_across(self, near: NDArray[np.int64], far: NDArray[np.int64], same: NDArray[np.bool_]) -> None:
        """Join the parts on both sides of a border, pixel by pixel: `near` and `far` are (n,) numbers, 0 for none.

        `same` is (n,), True where both pixels have the same label.
        """
        touching = same & (near > 0) & (far > 0)
        # A border of thousands of pixels has few different pairs, and each pair costs a step of the interpreter.
        for one, other in np.unique(np.column_stack((near[touching], far[touching])), axis=0).tolist():
            self.join(one, other)

    def closed(self, front: NDArray[np.int64]) -> list[list[int]]:
        """Take out and return the regions, as lists of parts, that have no part in `front` (numbers, 0 for none).

        The regions are in the order of their first part.
        """
        alive = {self.find(part) for part in np.unique(front).tolist() if part}
        done = [self._parts.pop(root) for root in [root for root in self._parts if root not in alive]]
        # What is closed is forgotten: memory follows the regions that are still open, not the map.
        for parts in done:
            for part in parts:
                del self._parent[part]
        return sorted(map(sorted, done))
