"""The student's own loss on each candidate: what it gets most wrong scores highest (LLM2LLM)."""
