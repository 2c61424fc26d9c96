"""The server of evaluation/testing.py, under the name that tests know it by."""

from evaluation.testing import model_server

__all__ = ["model_server"]
