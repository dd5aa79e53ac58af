"""Rows and pairs as the token ids that reach the loss.

trl is given ids, never text: it would tokenise prompt and completion as one string, with another BOS and with merges
across the boundary, and generation saw neither.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from stages.contract.errors import bad_data
from stages.influence.examples import Encoder, Unusable
from stages.pairs.settings import INSTRUCTION

IGNORED = -100  # the label of a token without loss


@dataclass(frozen=True)
class Encoded:
    """Rows of ids by column; `tokens` and `trained` are the tokens computed and those with loss, by row.

    `dropped` counts rows by reason: `too_long` (never cut to fit) and those of `stages.influence.examples`.
    """

    rows: list[dict[str, list[int]]]
    tokens: list[int]
    trained: list[int]
    dropped: dict[str, int]

    def check(self, max_tokens: int, wanted: int | None = None) -> None:
        """Raises StageError (BAD_DATA) where nothing is left to train on, or fewer rows than were asked for."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.dropped.items())
        if not self.rows:
            raise bad_data(
                f"no row can be trained on: {reasons or 'there is none'}",
                hint=f"max_tokens is {max_tokens}" if "too_long" in self.dropped else None,
            )
        if wanted is not None and len(self.rows) < wanted:
            raise bad_data(
                f"{wanted} rows were asked for and {len(self.rows)} of the usable ones can be trained on: {reasons}",
                where="rows",
                hint=f"generate more, lower rows, or raise max_tokens ({max_tokens})",
            )


def encode_rows(
    tokenizer: Any, rows: Iterable[Mapping[str, Any]], max_tokens: int, *, most: int | None = None
) -> Encoded:
    """(instruction, response) rows as input_ids and labels, the same ids that influence scores; with `most` the first
    so many that can be trained on."""
    encoder = Encoder(tokenizer, max_tokens)
    kept: list[dict[str, list[int]]] = []
    dropped: Counter[str] = Counter()
    trained = []
    for row in rows:
        if len(kept) == most:
            break
        example = encoder.encode(row["instruction"], row["response"] or "")
        if isinstance(example, Unusable):
            dropped["too_long" if example.reason == "no_response_token_left" else example.reason] += 1
        elif example.truncated:
            dropped["too_long"] += 1
        else:
            ids = list(example.ids)
            labels = [IGNORED] * example.labels_from + ids[example.labels_from :]
            kept.append({"input_ids": ids, "labels": labels})
            trained.append(example.tokens)
    return Encoded(kept, [len(row["input_ids"]) for row in kept], trained, dict(dropped))


def encode_pairs(tokenizer: Any, rows: Iterable[Mapping[str, Any]], max_tokens: int, closing: str) -> Encoded:
    """Pairs as prompt_ids, chosen_ids and rejected_ids.

    A prompt is the whole text that generation was given, chat template and begun turn included. An output is followed
    by the end of the turn; an instruction ends with `closing` before it, which generation stopped at.
    """
    encoder = Encoder(tokenizer, max_tokens)

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    def completion(output: str, kind: str) -> list[int]:
        closed = kind != INSTRUCTION or (closing and closing in output)
        return [*ids(output if closed else output + closing), encoder.end_of_turn]

    kept: list[dict[str, list[int]]] = []
    dropped: Counter[str] = Counter()
    for row in rows:
        prompt, kind = ids(row["prompt"]), row.get("kind", INSTRUCTION)
        chosen, rejected = completion(row["chosen"], kind), completion(row["rejected"], kind)
        if chosen == rejected:
            dropped["same_output"] += 1
        elif len(prompt) + max(len(chosen), len(rejected)) > max_tokens:
            dropped["too_long"] += 1
        else:
            kept.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
    trained = [len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in kept]
    tokens = [2 * len(row["prompt_ids"]) + count for row, count in zip(kept, trained, strict=True)]
    return Encoded(kept, tokens, trained, dict(dropped))
