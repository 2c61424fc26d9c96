"""Talking with a served model: one conversation, shown in a terminal or on a page, through the same loop as training."""
