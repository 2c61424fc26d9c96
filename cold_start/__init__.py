"""Supervised fine-tuning of Qwen2.5-VL with LLaMA-Factory."""
