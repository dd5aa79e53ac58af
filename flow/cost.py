"""What measuring influence would cost by each method, before anything is spent.

Counted in floating-point operations: a forward pass takes 2 P a token, a backward pass twice that, P being the
student's parameters. A candidate's step is one of each on its tokens; `exact` adds a forward pass over the reference
rows, `first_order` nothing, `two_stage` a forward pass over some of the rows for the instructions at either end of a
prompt (stages/influence/settings.py). Adam's update reads the weights, the moments and the reference gradient once a
candidate, which is bandwidth, not arithmetic.

Counts of rows are upper bounds (every output parses, nothing is dropped), but for the instructions that a correction
brings to the end of a prompt in `two_stage`, which are few where first order is good; speeds are those of past audits
in this store, else a guess that says so.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from flow.counts import CHARACTERS_A_TOKEN, TEMPLATE_TOKENS, rows_of, source
from flow.graph import Edge, Graph, Node
from flow.sources import count_rows, rows_file
from stages.contract.devices import visible_gpus
from stages.contract.manifest import Manifest
from stages.models.settings import BUILTIN, ModelSource, installed_folder

METHODS = ("exact", "two_stage", "first_order")
MORE_RESPONSES = 4

# Floating-point operations and bytes a second, where no past run tells: two cores of a server; a GPU with TF32 or bf16,
# and with fp32, in which gradients are taken always.
_CPU_CORE_FLOPS, _CPU_BYTES = 8e10, 2e10
_GPU_FLOPS, _GPU_FP32_FLOPS, _GPU_BYTES = 1.5e14, 4e13, 1.5e12
_UNKNOWN_ROWS, _UNKNOWN_TOKENS = 256, 540  # the paper's reference set


@dataclass(frozen=True)
class ProbeCost:
    """What scoring a run's candidates takes by one method. `seconds` is for one device.

    `generation`: seconds that having these responses takes before (`flow.plan.costs`); None where nothing tells.
    """

    node: str
    method: str
    chosen: bool
    responses: int
    candidates: int
    flops: float
    seconds: float
    assumed: str
    generation: float | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Speed:
    """Of one device: operations and bytes a second, and where the figures are from.

    `flops` are of less precise products than fp32's, where the device has such.
    """

    flops: float
    fp32_flops: float
    bytes: float
    source: str


def probe_costs(graph: Graph, past: list[Manifest]) -> list[ProbeCost]:
    """Each method for each influence node, with the recipe's number of responses and with four.

    Empty where the student's size cannot be known before it is downloaded.
    """
    return [cost for node in graph.nodes.values() if node.stage == "influence" for cost in _of(graph, node, past)]


def speed(past: list[Manifest]) -> Speed:
    """As past audits in the store measured it; else by kind of device."""
    measured = [each for each in past if each.figures.get("flops") and each.ledger.device_seconds]
    gpus = visible_gpus()
    if measured:
        last = max(measured, key=lambda each: each.finished)
        rate = float(last.figures["flops"]) / last.ledger.device_seconds
        return Speed(rate, rate, _GPU_BYTES if gpus else _CPU_BYTES, f"the speed of {last.run}'s audit")
    if gpus:
        guess = "a guess for a GPU: 40 TFLOP/s in fp32, 150 in less"
        return Speed(_GPU_FLOPS, _GPU_FP32_FLOPS, _GPU_BYTES, guess)
    cores = len(os.sched_getaffinity(0))
    rate = cores * _CPU_CORE_FLOPS
    return Speed(rate, rate, _CPU_BYTES, f"a guess for {cores} cores: {80 * cores} GFLOP/s")


def parameters(source: ModelSource) -> tuple[float, str] | None:
    """(parameters, how that is known) of a model that is here, or whose name says it."""
    path = installed_folder(source.model.removeprefix(BUILTIN)) if source.model.startswith(BUILTIN) else None
    config = (path or Path(source.model)) / "config.json"
    counted = _count(json.loads(config.read_text()), len(source.drop_layers)) if config.is_file() else None
    if counted is not None:
        return counted, "its config"
    named = re.findall(r"(\d+(?:\.\d+)?)\s*([bm])\b", source.model.lower())
    if named:
        number, unit = named[-1]
        return float(number) * (1e9 if unit == "b" else 1e6), "its name"
    return None


def _count(config: dict[str, Any], dropped: int) -> float | None:
    """Parameters of a decoder with gated MLPs, by its Hugging Face config; tied embeddings once.

    None for a family that calls its sizes something else. One that reads images as well nests those of its text.
    """
    config = {**config, **config.get("text_config", {})}
    names = ("hidden_size", "num_attention_heads", "num_hidden_layers", "vocab_size")
    hidden, heads, layers, words = (config.get(name) for name in names)
    if not (hidden and heads and layers and words):
        return None
    head = config.get("head_dim") or hidden // heads
    query, key = heads * head, (config.get("num_key_value_heads") or heads) * head
    layer = 2 * hidden * query + 2 * hidden * key + 3 * hidden * config.get("intermediate_size", 4 * hidden)
    embeddings = words * hidden * (1 if config.get("tie_word_embeddings") else 2)
    return float((layers - dropped) * layer + embeddings)


def _of(graph: Graph, node: Node, past: list[Manifest]) -> Iterator[ProbeCost]:
    student = _student(graph, node)
    found = parameters(student) if student else None
    responses = source(graph, node, "rows")
    made = rows_of(graph, responses)
    if found is None or made is None:
        return
    size, known_by = found
    curated = source(graph, responses, "instructions")
    samples = source(graph, curated, "instructions").settings.model_dump()["samples"]
    rows, row_tokens, reference_by = reference_rows(graph, source(graph, node, "reference"))
    settings = node.settings.model_dump()
    tokens = min(settings["max_tokens"], made.response + TEMPLATE_TOKENS)
    how = speed(past)
    precise = settings["products"] == "fp32" and settings["forward_dtype"] == "float32"
    passes = how.fp32_flops if precise else how.flops
    assumed = f"{size / 1e6:,.0f}M parameters by {known_by}; {reference_by}; {how.source}"
    trains = curated.settings.model_dump()["role"] == "train"
    counts = [made.each, MORE_RESPONSES] if made.each < MORE_RESPONSES and not trains else [made.each]
    for each, method in product(counts, METHODS):
        candidates = made.texts * each
        step, whole = 6 * size * tokens, 2 * size * rows * min(row_tokens, settings["max_tokens"])
        moved = (16 + 4 * settings["gradient_groups"]) * size
        ends = _exact_share(settings, samples) if method == "two_stage" else float(method == "exact")
        part = _pass_share(settings, rows) if method == "two_stage" else 1.0
        twice = candidates * ends if method == "two_stage" else 0.0
        gradients = (candidates + twice) * step + (0.0 if method == "exact" else 3 * whole)
        evaluated = whole + candidates * ends * whole * part
        seconds = gradients / how.fp32_flops + evaluated / passes + candidates * moved / how.bytes
        chosen = method == settings["method"] and each == made.each
        yield ProbeCost(node.name, method, chosen, each, candidates, gradients + evaluated, seconds, assumed)


def _exact_share(settings: dict[str, Any], samples: int) -> float:
    """Share of candidates that two_stage looks at twice."""
    return min(1.0, 2 * int(settings["per_side"]) / samples)


def _pass_share(settings: dict[str, Any], rows: int) -> float:
    """Share of the reference rows that it looks at."""
    groups, corrected = int(settings["gradient_groups"]), int(settings["corrected_groups"])
    return corrected / groups if 2 <= groups <= rows and 0 < corrected < groups else 1.0


def _student(graph: Graph, node: Node) -> ModelSource | None:
    """The model that the node's checkpoint was warmed up from, through earlier warm-ups if need be."""
    student = node.inputs["checkpoint"]
    while isinstance(student, Edge):
        student = graph.nodes[student.node].inputs["student"]
    return student


def reference_rows(graph: Graph, prepare: Node, *, heldout: bool = False) -> tuple[int, float, str]:
    """(rows to probe with, or held out; tokens of one; how that is known) of what `prepare` reads."""
    settings: Any = prepare.settings
    source = settings.reference
    share = 1 - settings.probe_share if heldout else settings.probe_share
    path = rows_file(source, graph.files)
    if path is not None and path.suffix != ".parquet":
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        texts = [line for line in lines if line.strip()][: source.limit]
        rows = max(1, round(len(texts) * share))
        tokens = sum(map(len, texts)) / max(1, len(texts)) / CHARACTERS_A_TOKEN + TEMPLATE_TOKENS
        return rows, tokens, f"{rows} reference rows of about {tokens:.0f} tokens"
    rows = max(1, round((count_rows(source, graph.files) or _UNKNOWN_ROWS) * share))
    return rows, _UNKNOWN_TOKENS, f"{rows} reference rows of {_UNKNOWN_TOKENS} tokens, which is a guess"
