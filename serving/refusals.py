"""What model servers say when they refuse a request, each in its own words."""

from __future__ import annotations

import re

_TOO_LONG = re.compile(
    r"context[ _-]?(?:length|size|window|limit|overflow)|max(?:imum)? (?:model|prompt|sequence|input) (?:length|tokens)"
    r"|max_model_len|max_seq_len|longer than the (?:model'?s )?(?:max|context)|(?:prompt|inputs?)(?: \w+){0,5} too long"
    r"|too many (?:input )?tokens|max_new_tokens`? must be"
    r"|(?:tokens?|length|prompt|context)\b[^.]{0,80} exceeds? (?:the |model'?s? )*(?:max|limit|available)"
    r"|range of input length|exceeded (?:model )?token limit|reduce (?:the length of|your prompt)|exceed_context"
    r"|(?:inputs?|prompt|request)\b[^.]{0,60} (?:must have less|(?:is |are )?(?:larger|more|greater)) than "
    r"(?:the )?(?:max|model|context|limit|\d{3})"
    r"|exceeds? (?:the )?model'?s? context|prompt is too large|max_total_tokens|must be at least 1, got -\d"
    r"|(?:输入|上下文|文本|提示词?|(?<!max_)token)[^，。,]{0,12}(?:过长|超长|太长|超过|超出)",
    re.IGNORECASE,
)
"""vLLM, SGLang, llama.cpp, TGI, TensorRT-LLM, LM Studio, Ollama, OpenAI, Azure, Anthropic, Mistral, Gemini, Groq, Together,
Cohere, xAI, DeepSeek, DashScope, Zhipu, MiniMax, SiliconFlow and Moonshot, each in its own words."""
_TOO_LONG_STATUS = (400, 413, 422, 500)
_OF_AN_ACCOUNT = re.compile(r"per (?:minute|day|hour)|rate.?limit", re.IGNORECASE)
"""Groq answers 413 where one request has more tokens than the account has a minute."""


def is_too_long(status: int, message: str) -> bool:
    """Whether a refusal says that the conversation, or it and the reply's limit together, are too long.

    Status 413 says so by itself, unless it comes as a page of HTML: that is a proxy's before the server, and ours to mend.
    """
    if status == 413 and not message.lstrip().startswith("<"):
        return _OF_AN_ACCOUNT.search(message) is None
    return status in _TOO_LONG_STATUS and _TOO_LONG.search(message) is not None
