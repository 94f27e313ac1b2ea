"""Keep arrays that took time to make, the most recently used ones up to a number of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

import numpy as np


class RecentArrays:
    """Arrays by key, safe to use from several threads; who changes one changes it for all.

    Args:
        limit: Bytes that are kept. The latest array stays even if it is larger.
    """

    def __init__(self, limit: int):
        self._limit, self._size = limit, 0
        self._arrays: OrderedDict[Hashable, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], np.ndarray]) -> np.ndarray:
        """The array of a key, made if it is not there; two threads may make the same one at once."""
        with self._lock:
            if key in self._arrays:
                self._arrays.move_to_end(key)
                return self._arrays[key]
        array = make()
        with self._lock:
            if key not in self._arrays:
                self._arrays[key] = array
                self._size += array.nbytes
            while self._size > self._limit and len(self._arrays) > 1:
                _, oldest = self._arrays.popitem(last=False)
                self._size -= oldest.nbytes
        return array
