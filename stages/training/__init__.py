"""What the three training stages (`warmup`, `dpo`, `sft`) share: trl on DeepSpeed, in processes of its own."""
