"""Pages about scored runs, and the published numbers beside them."""
