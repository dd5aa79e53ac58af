"""Examples arranged as batches for a forward pass: packed without padding, or padded row by row.

Packed: examples laid end to end in one row, positions restarting, attention inside each example only
(`attention.py`). Padded: one row an example, for models whose attention cannot be replaced; rows of like
length share a batch, and padding goes to the right, where a causal model cannot see it.

Shapes: B rows, T tokens a row, L label positions of the batch.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from stages.influence.examples import Example


@dataclass(frozen=True)
class Batch:
    """What one forward pass needs.

    Attributes:
        ids_BT: token ids; an example's last token predicts nothing and is left out.
        positions_BT: positions, restarting at every example.
        segments: lengths of the examples in a packed row; None where every row is one padded example.
        label_index_L: which of the B*T positions predicts label l.
        labels_L: token ids to predict.
        row_L: the index, in the caller's list, of the example that label l belongs to.
    """

    ids_BT: Tensor
    positions_BT: Tensor
    segments: tuple[int, ...] | None
    label_index_L: Tensor
    labels_L: Tensor
    row_L: Tensor

    @property
    def tokens(self) -> int:
        """Tokens computed, padding included."""
        return self.ids_BT.numel()

    def to(self, device: torch.device) -> Batch:
        return Batch(
            self.ids_BT.to(device),
            self.positions_BT.to(device),
            self.segments,
            self.label_index_L.to(device),
            self.labels_L.to(device),
            self.row_L.to(device),
        )

    def copy_(self, other: Batch) -> None:
        """Takes another batch's values, which has the same shapes and segments."""
        self.ids_BT.copy_(other.ids_BT)
        self.positions_BT.copy_(other.positions_BT)
        self.label_index_L.copy_(other.label_index_L)
        self.labels_L.copy_(other.labels_L)
        self.row_L.copy_(other.row_L)


def padded_to(batch: Batch, tokens: int, labels: int) -> Batch:
    """A batch of one example, with more tokens after it and more labels, which belong to a second row."""
    more, unread = tokens - batch.ids_BT.shape[1], labels - len(batch.labels_L)
    return Batch(
        F.pad(batch.ids_BT, (0, more)),
        torch.arange(tokens, device=batch.ids_BT.device)[None],
        None if batch.segments is None else (tokens,),
        F.pad(batch.label_index_L, (0, unread)),
        F.pad(batch.labels_L, (0, unread)),
        F.pad(batch.row_L, (0, unread), value=1),
    )


def pack(examples: Sequence[Example], pack_tokens: int, *, shuffle: int | None = None) -> list[Batch]:
    """Packs examples into rows of at most `pack_tokens` tokens; a longer example gets a row of its own.

    First-fit decreasing. `shuffle` seeds another order (then first-fit): the same losses, rounded otherwise,
    which is how the noise floor is measured.
    """
    order = list(range(len(examples)))
    if shuffle is None:
        order.sort(key=lambda row: -len(examples[row].ids))
    else:
        random.Random(shuffle).shuffle(order)
    rooms: list[int] = []
    bins: list[list[int]] = []
    for row in order:
        length = len(examples[row].ids) - 1
        for index, room in enumerate(rooms):
            if length <= room:
                bins[index].append(row)
                rooms[index] -= length
                break
        else:
            bins.append([row])
            rooms.append(pack_tokens - length)
    return [_packed(examples, rows) for rows in bins]


def pad(examples: Sequence[Example], batch_tokens: int, *, shuffle: int | None = None) -> list[Batch]:
    """Batches of examples of like length, padded to the longest: at most `batch_tokens` tokens with padding.

    `shuffle` seeds another order, in which unlike lengths meet: another rounding, and more padding.
    """
    order = list(range(len(examples)))
    if shuffle is None:
        order.sort(key=lambda row: -len(examples[row].ids))
    else:
        random.Random(shuffle).shuffle(order)
    groups: list[list[int]] = []
    width = 0
    for row in order:
        width = max(width, len(examples[row].ids) - 1)
        if groups and width * (len(groups[-1]) + 1) <= batch_tokens:
            groups[-1].append(row)
        else:
            groups.append([row])
            width = len(examples[row].ids) - 1
    return [_padded(examples, rows) for rows in groups]


def _packed(examples: Sequence[Example], rows: Sequence[int]) -> Batch:
    lengths = tuple(len(examples[row].ids) - 1 for row in rows)
    ids_T = torch.tensor([token for row in rows for token in examples[row].ids[:-1]])
    positions_T = torch.cat([torch.arange(length) for length in lengths])
    starts = [sum(lengths[:index]) for index in range(len(lengths))]
    return Batch(ids_T[None], positions_T[None], lengths, *_labels(examples, rows, starts))


def _padded(examples: Sequence[Example], rows: Sequence[int]) -> Batch:
    width = max(len(examples[row].ids) - 1 for row in rows)
    ids_BT = torch.zeros(len(rows), width, dtype=torch.int64)
    for index, row in enumerate(rows):
        ids = examples[row].ids[:-1]
        ids_BT[index, : len(ids)] = torch.tensor(ids)
    positions_BT = torch.arange(width).expand(len(rows), width).contiguous()
    starts = [index * width for index in range(len(rows))]
    return Batch(ids_BT, positions_BT, None, *_labels(examples, rows, starts))


def _labels(examples: Sequence[Example], rows: Sequence[int], starts: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    index, labels, row_of = [], [], []
    for start, row in zip(starts, rows, strict=True):
        example = examples[row]
        # The token before a label predicts it.
        index.append(torch.arange(start + example.labels_from - 1, start + len(example.ids) - 1))
        labels.append(torch.tensor(example.ids[example.labels_from :]))
        row_of.append(torch.full((example.tokens,), row))
    return torch.cat(index), torch.cat(labels), torch.cat(row_of)
