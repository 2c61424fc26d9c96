"""The server of evaluation/smoke/scripted_model.py, under the name that tests know it by."""

from evaluation.smoke.scripted_model import model_server

__all__ = ["model_server"]
