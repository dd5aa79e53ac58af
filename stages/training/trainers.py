"""trl's trainers with our rows, order, optimiser and schedule, under DeepSpeed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import trl.trainer.utils
from datasets import Dataset, load_from_disk
from torch.utils.data import Sampler
from transformers.trainer_callback import PrinterCallback
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from stages.dpo.settings import DpoSettings
from stages.training.batches import micro_batches, row_order
from stages.training.deepspeed_config import deepspeed_config
from stages.training.job import Advance, Job, write_whole
from stages.training.schedules import rate
from stages.training.settings import TrainingSettings

Rows = list[dict[str, list[int]]]

# trl scores the vocabulary at every position where there is no Triton, prompts included: shapes that change would cost
# compiling on some accelerators. On a CPU they cost nothing, and a pair is four fifths prompt.
trl.trainer.utils._use_triton = lambda device: device.type != "neuron"


class _InOrder(Sampler):  # type: ignore[misc,type-arg]
    def __init__(self, order: Sequence[int]) -> None:
        self.order = order

    def __iter__(self) -> Iterator[int]:
        return iter(self.order)

    def __len__(self) -> int:
        return len(self.order)


class _Ours:
    """What both trainers do our way. Mixed in before trl's class."""

    settings: TrainingSettings
    order: Sequence[int]

    def _get_train_sampler(self, train_dataset: Any = None) -> _InOrder:
        return _InOrder(self.order)

    def create_optimizer(self, model: Any = None) -> Any:
        """AdamW with one group: transformers' own spares norms and biases from decay, and a warm-up's m and v would
        then belong to two different updates."""
        if self.optimizer is None:  # type: ignore[has-type]
            self.optimizer = torch.optim.AdamW(
                [parameter for parameter in self.model.parameters() if parameter.requires_grad],  # type: ignore[attr-defined]
                lr=self.settings.learning_rate,
                betas=self.settings.betas,
                eps=self.settings.eps,
                weight_decay=self.settings.weight_decay,
                fused=True,
            )
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.lr_scheduler is None:  # type: ignore[has-type]
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.optimizer,
                lambda step: rate(self.settings.schedule, min(step, num_training_steps - 1), num_training_steps),
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """A checkpoint holds DeepSpeed's state, which has the weights in it; the model is exported once, at the end."""
        assert output_dir is not None
        Path(output_dir).mkdir(parents=True, exist_ok=True)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: the run's own report says where a model comes from."""


class RowTrainer(_Ours, SFTTrainer):  # type: ignore[misc]
    """SFTTrainer on rows of input_ids and labels."""


class PairTrainer(_Ours, DPOTrainer):  # type: ignore[misc]
    """DPOTrainer on pairs of ids; the reference is the model before training, computed once for every pair."""

    def __init__(self, *, job: Job, pairs: int, **arguments: Any) -> None:
        self._job, self._pairs, self._referred = job, pairs, 0
        super().__init__(**arguments)  # computes the reference

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset  # trl knows pairs of text only, and tokenises them another way than generation did

    def _prepare_input(self, data: Any) -> Any:
        """As it is. transformers casts what is floating to DeepSpeed's dtype, and here those are the reference's
        log-probabilities: in bfloat16 one of -300 is off by up to a nat, as much as DPO moves a pair."""
        if isinstance(data, torch.Tensor) and torch.is_floating_point(data):
            return data.to(self.args.device)
        return super()._prepare_input(data)

    def _precompute_ref_logps(self, *args: Any, **kwargs: Any) -> Any:
        """With the bare model where it is whole (ZeRO-2): trl's own engine for this keeps an optimiser's memory."""
        if self.args.deepspeed_plugin.zero_stage != 3:
            self._precompute_engine = self.model.to(self.args.device).eval()
        accelerator: Any = self.accelerator  # type: ignore[has-type]
        self.accelerator = _MainInItsPod(accelerator)
        try:
            return super()._precompute_ref_logps(*args, **kwargs)
        finally:
            self.accelerator = accelerator

    def compute_ref_log_probs(self, model: Any, inputs: Any) -> Any:
        """Says how far it is: that can take as long as the training."""
        found = super().compute_ref_log_probs(model, inputs)
        self._referred = min(self._pairs, self._referred + len(found[0]) * self._job.ranks)
        if os.environ["RANK"] == "0":
            write_whole(self._job.progress, Advance(phase="reference", done=self._referred, total=self._pairs))
        return found


class _MainInItsPod:
    """An accelerator whose main process is the first of each pod: trl has it write the file of log-probabilities that
    all read, and pods share no disk."""

    def __init__(self, accelerator: Any) -> None:
        self._accelerator = accelerator

    def __getattr__(self, name: str) -> Any:
        return getattr(self._accelerator, "is_local_main_process" if name == "is_main_process" else name)


def row_trainer(job: Job, settings: TrainingSettings, tokenizer: Any, rows: Rows) -> RowTrainer:
    arguments = SFTConfig(
        **_arguments(job, settings),
        max_length=None,
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    return _made(RowTrainer, job, settings, arguments, tokenizer, train=rows)


def pair_trainer(job: Job, settings: DpoSettings, tokenizer: Any, pairs: Rows, heldout: Rows) -> PairTrainer:
    arguments = DPOConfig(
        **_arguments(job, settings),
        max_length=None,
        beta=settings.beta,
        loss_type=list(settings.loss_type),
        label_smoothing=settings.label_smoothing,
        precompute_ref_log_probs=True,
        # Measured before the first step and again after the last; a resumed training has the first in its log.
        eval_on_start=bool(heldout) and job.resume is None,
    )
    kind = partial(PairTrainer, job=job, pairs=len(pairs) + len(heldout))
    return _made(kind, job, settings, arguments, tokenizer, train=pairs, heldout=heldout)


def _made(
    kind: Callable[..., Any],
    job: Job,
    settings: TrainingSettings,
    arguments: Any,
    tokenizer: Any,
    *,
    train: Rows,
    heldout: Rows | None = None,
) -> Any:
    """The trainer. It makes the model itself, from its path: ZeRO-3 must know of the arguments before there is one."""
    trainer = kind(
        model=str(job.model),
        args=arguments,
        processing_class=tokenizer,
        train_dataset=_shared(job, "train", train),
        eval_dataset=_shared(job, "heldout", heldout) if heldout else None,
    )
    trainer.settings = settings
    trainer.order = row_order(len(train), settings.epochs, settings.batch, settings.seed)
    trainer.remove_callback(PrinterCallback)
    return trainer


def _shared(job: Job, name: str, rows: Rows) -> Dataset:
    """One file that a pod's ranks read: trl keeps reference log-probabilities beside it, computed once for all."""
    path = job.folder / f"{name}-ids"
    if os.environ["LOCAL_RANK"] == "0":
        Dataset.from_list(rows).save_to_disk(path)
    if job.ranks > 1:
        dist.barrier()
    return load_from_disk(path)


def _arguments(job: Job, settings: TrainingSettings) -> dict[str, Any]:
    micro, accumulation = micro_batches(settings.batch, settings.micro_batch, job.ranks)
    return {
        "output_dir": str(job.checkpoints),
        "per_device_train_batch_size": micro,
        "per_device_eval_batch_size": 1,  # means over batches are then means over pairs
        "gradient_accumulation_steps": accumulation,
        "num_train_epochs": 1,  # the order holds all passes
        "learning_rate": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "bf16": settings.dtype == "bfloat16",
        "model_init_kwargs": {"dtype": settings.dtype},
        "gradient_checkpointing": settings.gradient_checkpointing,
        "deepspeed": deepspeed_config(settings, micro=micro, accumulation=accumulation, device=job.device),
        "use_cpu": job.device == "cpu",
        "dataloader_pin_memory": job.device != "cpu",
        "seed": settings.seed,
        "save_strategy": "no",  # Watch decides
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "log_level": "error",
        "disable_tqdm": True,
        "report_to": [],
    }
