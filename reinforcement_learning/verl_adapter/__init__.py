"""The only place that imports verl, ray or torch. What it relies on in verl 0.9.1: README.md beside this file."""
