"""Is the answer right? Rules first, then an LLM."""
