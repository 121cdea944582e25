"""The nearest pair of faces of every pair of clips, collected from a stream of pairs in bounded memory."""

from __future__ import annotations

import numpy as np

from lib.tasks.deepfake.prepare.check_columns import Codes, Faces

MOST_KEPT = 200_000  # pairs of clips


class NearestPairs:
    """one, two: rows int64 (k,), the nearest of each pair of clips, in ascending distance of their hashes once `sort`
    was called; has_forgotten: there were more pairs of clips than are kept.
    """

    def __init__(self, faces: Faces) -> None:
        self._faces = faces
        self._waiting: list[tuple[Codes, Codes]] = []
        self.one = self.two = np.zeros(0, np.int64)
        self.has_forgotten = False

    def __len__(self) -> int:
        return len(self.one)

    def add(self, one: Codes, two: Codes) -> None:
        self._waiting.append((one, two))
        if sum(len(rows) for rows, _ in self._waiting) > 2 * MOST_KEPT:
            self.sort()

    def sort(self) -> None:
        one = np.concatenate([self.one, *(rows for rows, _ in self._waiting)])
        two = np.concatenate([self.two, *(rows for _, rows in self._waiting)])
        self._waiting = []
        distance = np.bitwise_count(self._faces.phash[one] ^ self._faces.phash[two])
        clips = np.sort(np.stack([self._faces.clip[one], self._faces.clip[two]]), axis=0)
        order = np.lexsort((two, one, distance, clips[1], clips[0]))
        is_new = np.append(True, (clips[:, order[1:]] != clips[:, order[:-1]]).any(axis=0))[: len(order)]
        order = order[is_new]
        order = order[np.lexsort((two[order], one[order], distance[order]))]
        self.has_forgotten |= len(order) > MOST_KEPT
        self.one, self.two = one[order[:MOST_KEPT]], two[order[:MOST_KEPT]]
