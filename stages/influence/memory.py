"""What one rank of a probe holds, in bytes: decides how many GPUs a student needs, and docs/influence.md quotes it.

With P parameters over N ranks:

    θ, m, v               12 P/N
    reference gradient    4 P/N (2 in bf16)
    K groups of it        2 K P/N (4 on a CPU)
    θ'                    4 P/N (2 in bf16), once anything is scored exactly

and while the reference gradient is taken, once: θ̄ 4 P/N, its sums 4 P/N (8 beside groups) and the groups; m and v then
wait in the host's memory. A CPU has no other memory for them to wait in. The audit's noise takes a second reference
gradient beside the first, and θ with other roundings, 4 P/N.

Whatever N, there is what a backward pass needs whole for a moment: the gradient of the embedding (on a GPU two, if the
head is tied to it; on a CPU of one rank one for each candidate of those whose first order is taken `together`), with
several ranks the embedding gathered and its gradient on its way to the others, copied once more if its elements are no
multiple of N; logits of one chunk, and activations.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stages.influence.results import ProbeOptions

_FP32, _BF16 = 4, 2


@dataclass(frozen=True)
class StudentSize:
    """A student as memory sees it.

    Attributes:
        parameters: P, tied weights once.
        largest: elements of its largest parameter, mostly the embedding.
        layer: elements of its largest decoder layer.
        layers, hidden, intermediate, vocabulary: as in its config.
        tied: whether its head is its embedding.
    """

    parameters: int
    largest: int
    layer: int
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    tied: bool


def student_size(folder: Path) -> StudentSize:
    """Of a Hugging Face folder, from its config alone."""
    import torch

    from stages.influence.head import head_of
    from stages.influence.state import build_student

    with torch.device("meta"):
        model = build_student(folder)
    config = model.config.get_text_config()
    layers: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        parts = name.split(".")
        if number := next((part for part in parts if part.isdecimal()), None):
            layers[number] = layers.get(number, 0) + parameter.numel()
    return StudentSize(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        largest=max(parameter.numel() for parameter in model.parameters()),
        layer=max(layers.values(), default=0),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        vocabulary=config.vocab_size,
        tied=head_of(model)[0] is model.get_input_embeddings().weight,
    )


def together(device: str, ranks: int) -> int:
    """How many candidates' gradients a backward pass takes at most for first order, each apart (apart.py).

    On a CPU of one rank; they share a pass over the weights, and one over m, v and the reference gradients.
    """
    return 8 if device == "cpu" and ranks == 1 else 1


def rank_bytes(
    size: StudentSize,
    options: ProbeOptions,
    *,
    ranks: int,
    exact: bool,
    first_order: bool,
    tokens: int,
    noise: bool = False,
    device: str = "cuda",
) -> int:
    """Most memory of one of `ranks`.

    Args:
        exact, first_order: which of the two are computed; both for `two_stage`.
        noise: whether their noise is measured, as in the audit.
        tokens: of the longest pass with a gradient.
    """
    part = -(-size.parameters // ranks)
    forward = _bytes(options.forward_dtype)
    kept = options.gradient_groups if options.gradient_groups >= 2 else 0
    scored = forward * part if exact else 0
    group_bytes = kept * part * (_FP32 if device == "cpu" else _BF16) if first_order else 0
    gradient = _bytes(options.gradient_dtype) * part if first_order else 0
    probing = 3 * _FP32 * part + group_bytes + gradient + scored
    taking = (4 if device == "cpu" else 1) * _FP32 * part + group_bytes + scored + (2 if kept else 1) * _FP32 * part
    if noise:
        probing, taking = probing + gradient + _FP32 * part, taking + gradient
    peak = max(probing, taking if first_order else 0)
    if ranks > 1:
        copies = 3 if size.largest % ranks == 0 else 4
        whole = max(copies * size.largest, (copies - 1) * size.largest + size.layer)
    else:
        of_embedding = 2 if size.tied and device != "cpu" else 1
        whole = size.largest * max(of_embedding, together(device, ranks) if first_order else 1)
    return peak + _FP32 * whole + _activations(size, options, tokens)


def _bytes(dtype: str) -> int:
    return _BF16 if dtype == "bfloat16" else _FP32


def _activations(size: StudentSize, options: ProbeOptions, tokens: int) -> int:
    """Inputs of a layer's products and its elementwise functions, in fp32, and three chunks of logits."""
    layer = (10 * size.hidden + 4 * size.intermediate) * tokens
    layers = layer + size.layers * size.hidden * tokens if options.gradient_checkpointing else size.layers * layer
    return _FP32 * (layers + 3 * options.chunk * size.vocabulary)
