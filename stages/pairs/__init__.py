"""Preference pairs: from instruction scores to what the teacher's DPO is trained on."""
