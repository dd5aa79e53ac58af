"""Students on any task of EleutherAI's lm-evaluation-harness."""
