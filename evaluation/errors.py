"""What can be wrong with a benchmark's file."""


class BenchmarkError(ValueError):
    """The benchmark's file cannot be used as it stands."""
