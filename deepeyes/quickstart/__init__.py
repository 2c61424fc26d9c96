"""The whole pipeline on a CPU: data, a tiny model, every stage, and the report."""
