"""What the generating stages share: engines, prompts, sampling settings, seeds and the gate on their output."""
