"""To and from other harnesses."""
