"""The best-scored instructions as seeds: how LLM2LLM and bootstrapping use a signal, without training the teacher."""
