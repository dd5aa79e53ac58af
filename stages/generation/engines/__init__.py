"""The engines that turn prompts into sampled text, behind one protocol."""
