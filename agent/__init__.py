"""What the model sees and does: the episode loop, the tag protocol, tools, search and prompts."""
