"""A scorer and its candidates out of a stage's inputs; what `influence` and `audit` share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

from stages.contract.context import StageContext
from stages.contract.devices import visible_gpus
from stages.contract.errors import ExitCode, StageError
from stages.influence.memory import rank_bytes, student_size
from stages.influence.ranked import RankedScorer
from stages.influence.results import ProbeOptions
from stages.influence.scorer import LocalScorer, Scorer, Scoring
from stages.influence.settings import ProbeSettings

# The rest is CUDA's and NCCL's own, and what the allocator cannot use for fragments.
_USABLE = 0.95

Row = dict[str, Any]


@dataclass(frozen=True)
class Probes:
    """What scores rows: the `encoder` of the student's rows and the `scorer` of the encoded ones.

    `corrects` says whether the scorer has groups of reference rows to correct first order on; `reference_truncated`
    counts reference rows that lost their end.
    """

    encoder: Any
    scorer: Scorer
    devices: int
    corrects: bool
    reference_truncated: int = 0


@contextmanager
def opened(context: StageContext) -> Iterator[Probes]:
    """The warm-up checkpoint and the probe half of the reference, in as many processes as the student needs.

    Raises:
        StageError: BAD_DATA for a broken checkpoint or a reference row that cannot be scored; OUT_OF_MEMORY where all
            GPUs together are too small, with the figures.
    """
    from stages.influence.examples import Encoder, within_context
    from stages.influence.state import read_config, read_tokenizer

    settings: ProbeSettings = context.settings
    reference = context.table("reference", "probe").to_pylist()
    folder = context.folder("checkpoint")
    with context.meter.phase("load"):
        config = read_config(folder).get_text_config()
        longest = within_context(config, settings.max_tokens)
        if longest < settings.max_tokens:
            context.log.warning("max_tokens is more than the student's context", context=longest)
        encoder = Encoder(read_tokenizer(folder), longest, config.vocab_size)
        examples = encoder.encode_reference((row["ref_id"], row["instruction"], row["response"]) for row in reference)
        if cut := sum(example.truncated for example in examples):
            context.log.warning("reference rows lost their end", rows=cut, of=len(examples), longest=longest)
        names = (field.name for field in fields(ProbeOptions) if field.name != "seed")
        options = ProbeOptions(**{name: getattr(settings, name) for name in names})
        gpus = visible_gpus()
        scoring = Scoring(folder, examples, options, "cuda" if gpus else "cpu")
        ranks = settings.ranks or (ranks_needed(scoring, settings, gpus) if gpus else 1)
        context.log.info("probing", device=scoring.device, ranks=ranks, gpus=gpus, reference_rows=len(examples))
        scorer: Scorer = LocalScorer(scoring) if ranks == 1 else RankedScorer(scoring, ranks)
    try:
        yield Probes(encoder, scorer, ranks, options.corrects(len(examples)), cut)
    finally:
        scorer.close()


def ranks_needed(scoring: Scoring, settings: ProbeSettings, gpus: int) -> int:
    """1 if the student fits one GPU, else all of them."""
    import torch

    size, room = student_size(scoring.folder), _USABLE * torch.cuda.get_device_properties(0).total_memory
    method = getattr(settings, "method", None)  # the audit has none: it takes every score, and their noise
    needed = {}
    for ranks in sorted({1, gpus}):
        needed[ranks] = rank_bytes(
            size,
            scoring.options,
            ranks=ranks,
            exact=method != "first_order",
            first_order=method != "exact",
            tokens=max(settings.max_tokens, settings.pack_tokens),
            noise=method is None,
        )
        if needed[ranks] <= room:
            return ranks
    gib = {ranks: round(value / 2**30, 1) for ranks, value in needed.items()}
    raise StageError(
        f"the student needs {gib[gpus]} GiB on each of {gpus} GPUs of {room / 2**30:.1f} usable GiB",
        code=ExitCode.OUT_OF_MEMORY,
        where=f"{scoring.folder}",
        hint="more GPUs a shard, gradient_groups: 0, gradient_dtype or forward_dtype: bfloat16, "
        f"gradient_checkpointing: true, or {'no audit (size: 0)' if method is None else 'method: first_order'}",
    )
