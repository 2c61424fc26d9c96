"""Every benchmark without its data: synthetic files, and a scripted model."""
