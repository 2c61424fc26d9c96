"""A checkpoint behind vLLM, talked to as it was trained."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from pathlib import Path

from agent.chat_formats import UnknownFamily, format_of_folder
from serving.vllm import serve_checkpoint


def serve(checkpoint: Path, *, log: Path, cpu: bool, served_name: str = "policy") -> AbstractContextManager[str]:
    """Serve a model's folder with the chat template of its family, so that it reads what it read in training.

    A Thinking model's own template would leave the thoughts of earlier replies out. One of a family that is not known here
    has its own.

    Args:
        checkpoint: See `serve_checkpoint`, as for the others and for what is yielded and raised.
        log: The template is written beside it.
        cpu: Use the settings for a CPU.
        served_name: What requests call the model.
    """
    chat_template = ""
    arguments: tuple[str, ...] = ()
    with contextlib.suppress(UnknownFamily, OSError, ValueError):
        chat_template = format_of_folder(checkpoint).chat_template
    if chat_template:
        template = log.with_name("chat_template.jinja")
        template.parent.mkdir(parents=True, exist_ok=True)
        template.write_text(chat_template, encoding="utf-8")
        arguments = ("--chat-template", str(template))
    return serve_checkpoint(checkpoint, log=log, cpu=cpu, served_name=served_name, arguments=arguments)
