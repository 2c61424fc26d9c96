"""Training sets made ready once: images by name in a store, rows in one schema, what was dropped and why."""
