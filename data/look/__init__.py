"""Data looked at before anything is trained on it: numbers, single rows, what its readers will refuse, a page of samples."""
