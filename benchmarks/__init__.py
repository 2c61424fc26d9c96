"""What the docs measure, to be run again by anyone."""
