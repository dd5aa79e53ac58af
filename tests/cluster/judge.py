"""`python -m tests.cluster.judge`: a judge behind OpenAI's API, for pods; each answer depends on what is asked alone.

Its first request is refused with 429. Of the ratings some are prose and some out of range: figures, and no zeros.
"""

from __future__ import annotations

import hashlib
import threading
from typing import Any

from tests.generation.server import Answer, refuses, says, serving

PORT = 8000
_ANSWERS = ("Helpful.\nScore: 4", "Short, but right.\nScore: 2", "I like birds.", "11/5")


def answer(number: int, body: dict[str, Any]) -> Answer:
    if number == 0:
        return refuses(429, "slow down")
    asked = f"{body['messages'][-1]['content']} {body['seed']}"
    return says(_ANSWERS[hashlib.sha256(asked.encode()).digest()[0] % len(_ANSWERS)])


if __name__ == "__main__":
    with serving(answer, host="0.0.0.0", port=PORT):
        threading.Event().wait()
