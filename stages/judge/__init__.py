"""A language model's rating of each candidate (Self-Rewarding Language Models)."""
