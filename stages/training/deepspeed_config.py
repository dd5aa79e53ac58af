"""DeepSpeed's JSON configuration."""

from __future__ import annotations

from typing import Any

from stages.training.settings import TrainingSettings


def deepspeed_config(settings: TrainingSettings, *, micro: int, accumulation: int, device: str) -> dict[str, Any]:
    """ZeRO-2 or 3 with torch's AdamW and fp32 master weights, moments and gradient sums.

    Args:
        micro: rows a rank computes at once.
        accumulation: micro-batches a step.
    """
    zero: dict[str, Any] = {
        "stage": settings.zero_stage,
        # Spares a GPU's memory from fragments; on a CPU it is one more copy of every gradient, a third of a step.
        "contiguous_gradients": device != "cpu",
        "overlap_comm": device != "cpu",
    }
    if settings.zero_stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    return {
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": settings.max_grad_norm,
        # What is not finite is found in the loss, and in the weights before they are published.
        "bf16": {"enabled": settings.dtype == "bfloat16", "check_grad_overflow": False},
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_optimization": zero,
        # DeepSpeed's own CPU Adam is compiled at first use, and images have no compiler: torch's AdamW it is.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1_000_000_000,
        "wall_clock_breakdown": False,
    }
