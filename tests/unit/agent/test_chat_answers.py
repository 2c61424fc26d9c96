"""What chat servers answer, in the words that they use: a reply, a full context, or an outage of ours; never an empty reply."""

import json

import httpx
import pytest

from agent.chat_answers import tokens_left
from agent.errors import ContextFull, PolicyUnavailable
from agent.messages import Message
from agent.openai_chat import ChatClient, ChatPolicy, ChatSettings
from serving.refusals import is_too_long

QUESTION = [Message("user", "q")]
TOO_LONG = [
    (400, "This model's maximum context length is 32768 tokens. However, you requested 33056 tokens in the messages"),
    (400, '{"error":{"code":"context_length_exceeded","message":"Please reduce the length of the messages."}}'),
    (400, "The decoder prompt (length 40000) is longer than the maximum model length of 32768."),
    (400, "You passed 32769 input tokens and requested 0 output tokens. However, the model's context length is only 32768 tokens"),
    (400, "request (33056 tokens) exceeds the available context size (32768 tokens), try increasing it"),
    (500, "the request exceeds the available context size. try increasing the context size or enable context shift"),
    (400, "The input (40000 tokens) is longer than the model's context length (32768 tokens)."),
    (422, "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens and 20"),
    (400, "prompt is too long: 205000 tokens > 200000 maximum"),
    (400, "Prompt contains 140000 tokens, too large for model with 131072 maximum context length"),
    (400, "Trying to keep the first 9000 tokens when context the overflows. However, the model is loaded with context length of 4096"),
    (400, "The input token count (1100000) exceeds the maximum number of tokens allowed (1048576)."),
    (400, "Input is too long for requested model."),
    (400, "This model's maximum prompt length is 131072 but the request contains 140000 tokens."),
    (400, "Range of input length should be [1, 30720]"),
    (400, "Prompt exceeds max length"),
    (400, "invalid params, context window exceeds limit (2013)"),
    (400, "Invalid request: Your request exceeded model token limit: 8192"),
    (400, "Input token length too long"),
    (400, "too many tokens: total number of tokens in the prompt cannot exceed 4081"),
    (400, "The prompt length (9000) exceeds the maximum of 8192"),
    (413, "maximum context length exceeded"),
    (413, ""),
    (413, "Request body too large for gpt-4o model. Max size: 8000 tokens."),
    (413, '{"type":"error","error":{"type":"request_too_large","message":"Request exceeds the maximum size"}}'),
    (422, "Input validation error: `inputs` must have less than 1024 tokens. Given: 1138"),
    (400, "length of prompt_tokens (163280) must be less than max_seq_len (32768)."),
    (400, '{"code":20042,"message":"max_total_tokens exceeded"}'),
    (400, "The number of input tokens (9000) is larger than the maximum 8192"),
    (400, "The total number of tokens in the request (9000) exceeds the model's context (8192)"),
    (400, "max_tokens must be at least 1, got -288."),
    (400, "输入长度超过最大限制"),
    (400, "输入内容过长, 请减少输入"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "message"), TOO_LONG)
def test_every_servers_words_for_a_full_context_are_known(status, message):
    assert is_too_long(status, message)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (429, "Request too large for gpt-4o: Limit 30000 tokens per minute, please reduce the length of the messages"),
        (400, "Invalid 'stop': array too long. Expected an array with maximum length 4, but got an array with length 5"),
        (400, "Invalid input: 'stop': array too long"),
        (400, "At most 8 image(s) may be provided in one prompt."),
        (400, "image exceeds 5 MB maximum: 6291456 bytes > 5242880 bytes"),
        (400, "max_tokens must be at least 1, got 0."),
        (401, "Incorrect API key provided"),
        (500, "CUDA out of memory"),
        (400, "max_tokens must be greater than 0"),
        (400, "Invalid request: top_p is greater than 1"),
        (400, "max_tokens超过限制"),
        (413, "Request too large: on tokens per minute (TPM): Limit 6000, Requested 9251, please reduce your message size"),
        (413, "<html><head><title>413 Request Entity Too Large</title></head><hr><center>nginx</center></html>"),
    ],
)
def test_other_refusals_are_not_a_full_context(status, message):
    assert not is_too_long(status, message)


@pytest.mark.parametrize(
    ("message", "left"),
    [
        ("'max_tokens' or 'max_completion_tokens' is too large: 8192. This model's maximum context length is 4096 tokens and "
         "your request has 300 input tokens (8192 > 4096 - 300).", 3796),
        ("You passed 3000 input tokens and requested 8192 output tokens. However, the model's context length is only 8192 tokens, "
         "resulting in a maximum input length of 0 tokens.", 5192),
        ("This model's maximum context length is 4097 tokens. However, you requested 8492 tokens (300 in the messages, 8192 in the "
         "completion). Please reduce the length of the messages or completion.", 3797),
        ("Requested token count exceeds the model's maximum context length of 4096 tokens. You requested a total of 9192 tokens: "
         "1000 tokens from the input messages and 8192 tokens for the completion.", 3096),
        ("input length and `max_tokens` exceed context limit: 188240 + 8192 > 190000, decrease input length or `max_tokens`", 1760),
        ("max_tokens is too large: 8192. This model supports at most 4096 completion tokens, whereas you provided 8192.", 4096),
        ("Invalid max_tokens value, the valid range of max_tokens is [1, 8000]", 8000),
        ("This model's maximum context length is 4096 tokens. However, you requested 12300 tokens (4108 in the messages, 8192 in the "
         "completion).", None),
        ("prompt is too long", None),
    ],
)  # fmt: skip
def test_a_refused_limit_says_what_is_left(message, left):
    assert tokens_left(message, 8192) == left


class Server:
    """Gives these answers, the last one for ever, and remembers what it was asked."""

    def __init__(self, *answers):
        self.answers, self.bodies = list(answers), []

    def __call__(self, request):
        self.bodies.append(json.loads(request.content))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def policy(self, on_text=None, primer="", **settings):
        given = {"base_url": "http://model/v1", "model": "m", "attempts": 2} | settings
        client = ChatClient(ChatSettings(**given), transport=httpx.MockTransport(self))
        return ChatPolicy(client, max_reply_tokens=8192, primer=primer, on_text=on_text)


def whole(message, finish="stop", **more):
    return httpx.Response(200, json={"choices": [{"message": message, "finish_reason": finish} | more], "usage": {}})


def stream(*events, kind="text/event-stream"):
    text = "".join(event if isinstance(event, str) else f"data: {json.dumps(event)}\n\n" for event in events)
    return httpx.Response(200, text=text, headers={"Content-Type": kind})


def piece(finish=None, **delta):
    return {"choices": [{"delta": delta, "finish_reason": finish}]}


@pytest.mark.parametrize(
    "message",
    [
        {"content": None, "reasoning_content": "red, so", "reasoning": "red, so"},
        {"content": "", "reasoning": "red, so"},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "red, so"}]}]},
        {"content": [{"type": "reasoning", "text": "red, so"}]},
        {"content": "", "reasoning_details": [{"type": "reasoning.text", "text": "red, "}, {"type": "reasoning.summary", "summary": "so"}]},
        {"content": "", "thinking_blocks": [{"type": "thinking", "thinking": "red, so", "signature": "x"}]},
        {"content": None, "reasoning": {"content": "red, so"}},
    ],
)
async def test_a_reply_of_thoughts_alone_is_read_as_thoughts(message):
    assert (await Server(whole(message)).policy().reply(QUESTION)).text == "<think>red, so</think>"
    cut = await Server(whole(message, finish="length")).policy().reply(QUESTION)
    assert (cut.text, cut.finish) == ("<think>red, so", "length")


async def test_thoughts_of_their_own_field_stand_before_the_text_and_are_shown_in_order():
    message = {"content": "<answer>red</answer>", "reasoning_content": "hm"}
    assert (await Server(whole(message)).policy().reply(QUESTION)).text == "<think>hm</think><answer>red</answer>"
    seen = []
    parts = [piece(reasoning_content="h"), piece(reasoning_content="m"), piece(content="<answer>"), piece("stop", content="red</answer>")]
    reply = await Server(stream(*parts, "data: [DONE]\n\n")).policy(seen.append).reply(QUESTION)
    assert reply.text == "".join(seen) == "<think>hm</think><answer>red</answer>"


async def test_parts_of_text_are_one_text():
    parts = [{"type": "text", "text": "<answer>"}, "red", {"type": "output_text", "text": {"value": "</answer>"}}]
    assert (await Server(whole({"content": parts})).policy().reply(QUESTION)).text == "<answer>red</answer>"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (whole({"content": ""}, finish="abort"), "broke the reply off"),
        (whole({"content": "half"}, finish="error"), "broke the reply off"),
        (whole({"content": ""}, finish="content_filter"), "withheld the reply"),
        (whole({"content": None, "tool_calls": [{"function": {"name": "search"}}]}), "calls of tools .search."),
        (whole({"content": "<think>hm</think>\n", "tool_calls": [{"name": "search"}]}), "calls of tools .search."),
        (whole({"content": None, "function_call": {"name": "search", "arguments": "{}"}}), "calls of tools .search."),
        (whole({"content": ""}, finish="MALFORMED_FUNCTION_CALL"), "calls of tools .malformed_function_call."),
        (whole({"content": ""}, finish=None), "neither a reply nor a reason"),
        (stream({"choices": []}, "data: [DONE]\n\n"), "neither a reply nor a reason"),
        (httpx.Response(200, json={"choices": [{"message": {"content": ""}, "finish_reason": "stop"}], "usage": {"completion_tokens": 40}}),
         "counts 40 tokens .* a parser for thoughts"),
        (stream({"object": "error", "message": "engine died", "code": 500}, "data: [DONE]\n\n"), "engine died"),
        (httpx.Response(200, text="<html>login</html>", headers={"Content-Type": "text/html"}), "a page of HTML; is the base URL"),
        (httpx.Response(200, json={"error": {"message": "overloaded"}}), "overloaded"),
        (httpx.Response(200, text="upstream timeout"), "no JSON"),
    ],
)  # fmt: skip
async def test_what_is_no_answer_is_an_outage(answer, said):
    for on_text in (None, lambda _: None):
        with pytest.raises(PolicyUnavailable, match=said):
            await Server(answer).policy(on_text, attempts=1).reply(QUESTION)


@pytest.mark.parametrize(
    "events",
    [
        [piece(content="<think>"), 'event: error\ndata: {"error": {"message": "engine died"}}\n\n'],
        [piece(content="<think>"), {"error": {"message": "engine died", "code": 500}}],
        [piece(content="<think>"), piece("abort")],
        [piece(content="<think>"), piece(content="hm")],
        [piece(content="<think>"), "data: {broken\n\n"],
        [piece(content="<think>"), {"choices": [{"delta": {}, "error": {"message": "engine died"}}]}],
    ],
    ids=["error event", "error", "abort", "cut short", "broken", "error of a choice"],
)
async def test_a_stream_that_breaks_off_is_an_outage_whatever_was_said(events):
    with pytest.raises(PolicyUnavailable, match="broke off"):
        await Server(stream(*events)).policy(lambda _: None).reply(QUESTION)


@pytest.mark.parametrize(
    "events",
    [
        [piece(content="<answer>4"), piece(content="2</answer>"), "data: [DONE]\n\n"],
        [piece(content="<answer>42</answer>"), piece("stop")],
        [": comment\r\n\r\n", "data:" + json.dumps(piece(content="<answer>42</answer>")) + "\r\n\r\n", piece("stop")],
        [piece(content="<answer>42</answer>"), {"choices": [], "usage": {"completion_tokens": 3}}, piece(""), "data: [DONE]\n\n"],
        [json.dumps({"choices": [{"message": {"content": "<answer>42</answer>"}, "finish_reason": "stop"}]})],
        ["\ufeff", piece("stop", content="<answer>42</answer>"), "data: [DONE]\n\n"],
        ['data: {"choices": [{"finish_reason": "stop",\ndata: "delta": {"content": "<answer>42</answer>"}}]}\n\n'],
        ["data:\n\n", piece("stop", content="<answer>42</answer>"), "data: [DONE]\n\ndata: {cut\n\n"],
    ],
    ids=["no finish_reason", "no DONE", "comments and CRLF", "an empty finish_reason", "all at once", "a byte order mark",
         "an event of two lines", "something behind DONE"],
)  # fmt: skip
async def test_odd_streams_that_are_whole_are_read(events):
    seen = []
    assert (await Server(stream(*events)).policy(seen.append).reply(QUESTION)).text == "".join(seen) == "<answer>42</answer>"


@pytest.mark.parametrize("kind", ["text/event-stream", "application/json"])
async def test_a_server_that_streams_unasked_is_read(kind):
    events = [piece(content="<answer>4"), piece("stop", content="2</answer>"), "data: [DONE]\n\n"]
    for on_text in (None, lambda _: None):
        assert (await Server(stream(*events, kind=kind)).policy(on_text).reply(QUESTION)).text == "<answer>42</answer>"


async def test_line_ends_of_unicode_in_a_reply_end_no_event():
    """A model that writes them must not break its stream, which would be an outage of ours."""
    text = "<answer>a\u2028b\u0085c\x0cd\u2029</answer>"
    event = "data: " + json.dumps(piece("stop", content=text), ensure_ascii=False) + "\n\n"
    assert (await Server(stream(event)).policy(lambda _: None).reply(QUESTION)).text == text


async def test_a_full_context_that_a_stream_tells_is_one():
    with pytest.raises(ContextFull):
        await Server(stream({"error": {"message": TOO_LONG[0][1]}})).policy(lambda _: None).reply(QUESTION)


async def test_a_server_that_ignores_stop_strings_is_cut_behind_the_first():
    text = "<think>x</think><code>print(1)</code>\n<answer>guessed</answer><code>print(2)</code>"
    more = {"token_ids": [1, 2, 3], "logprobs": {"content": [{"logprob": -1.0}] * 3}}
    reply = await Server(whole({"content": text}, finish="length", **more)).policy(record_tokens=True).reply(QUESTION)
    assert (reply.text, reply.finish) == ("<think>x</think><code>print(1)</code>", "stop")
    assert (reply.token_ids, reply.logprobs) == ((), ())
    seen = []
    events = [piece(content=text[n : n + 5]) for n in range(0, len(text), 5)]
    reply = await Server(stream(*events, piece("length"))).policy(seen.append).reply(QUESTION)
    assert reply.text == "".join(seen) == "<think>x</think><code>print(1)</code>"


async def test_a_limit_that_is_larger_than_what_is_left_is_lowered():
    refusal = httpx.Response(400, text="maximum context length is 4096 tokens and your request has 300 input tokens (8192 > 4096 - 300)")
    server = Server(refusal, whole({"content": "<answer>a</answer>"}))
    assert (await server.policy(attempts=1).reply(QUESTION)).text == "<answer>a</answer>"
    assert [body["max_tokens"] for body in server.bodies] == [8192, 3796]
    full = httpx.Response(400, text="maximum context length is 4096 tokens and your request has 4096 input tokens")
    with pytest.raises(ContextFull):
        await Server(full).policy().reply(QUESTION)


@pytest.mark.parametrize(
    ("status", "text", "field"),
    [
        (400, "Unrecognized request argument supplied: stream_options", "stream_options"),
        (422, '{"detail":[{"type":"extra_forbidden","loc":["body","include_stop_str_in_output"],"msg":"Extra inputs are not '
              'permitted"}]}', "include_stop_str_in_output"),
        (400, "Unsupported value: 'temperature' does not support 0 with this model.", "temperature"),
        (400, "property 'skip_special_tokens' is unsupported", "skip_special_tokens"),
        (400, "`temperature` is deprecated for this model.", "temperature"),
        (400, "`temperature` and `top_p` cannot both be specified for this model.", "top_p"),
        (400, "Invalid 'stop': array too long. Expected an array with maximum length 1, but got an array with length 2", "stop"),
        (400, "Unsupported value: 'stream' does not support true with this model.", "stream"),
    ],
)  # fmt: skip
async def test_a_strict_server_is_asked_without_what_it_does_not_know_from_then_on(status, text, field):
    good = stream(piece("stop", content="<answer>a</answer>"))
    server = Server(httpx.Response(status, text=text), good)
    policy = server.policy(lambda _: None, attempts=1)
    for _ in range(2):
        assert (await policy.reply(QUESTION)).text == "<answer>a</answer>"
    assert [field in body for body in server.bodies] == [True, False, False]


@pytest.mark.parametrize(
    "text",
    [
        "`temperature` has to be a strictly positive float",
        "Input validation error: `temperature` must be strictly positive",
        "temperature must be > 0",
        "<400> InternalError.Algo.InvalidParameter: Temperature should be in (0.0, 2.0)",
    ],
)
async def test_a_server_that_refuses_temperature_0_is_asked_with_the_least_from_then_on(text):
    server = Server(httpx.Response(422, text=text), whole({"content": "<answer>a</answer>"}))
    policy = server.policy(attempts=1)
    for _ in range(2):
        assert (await policy.reply(QUESTION)).text == "<answer>a</answer>"
    assert [body["temperature"] for body in server.bodies] == [0.0, 0.01, 0.01]


async def test_a_proxy_that_refuses_the_size_is_named_and_is_an_outage():
    answer = httpx.Response(413, text="<html><h1>413 Request Entity Too Large</h1></html>")
    with pytest.raises(PolicyUnavailable, match="a proxy before the server, such as nginx with client_max_body_size"):
        await Server(answer).policy().reply(QUESTION)


async def test_a_server_that_wants_the_limit_by_its_new_name_gets_it():
    text = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    server = Server(httpx.Response(400, text=text), whole({"content": "<answer>a</answer>"}))
    await server.policy(attempts=1).reply(QUESTION)
    assert server.bodies[1]["max_completion_tokens"] == 8192
    assert "max_tokens" not in server.bodies[1]


async def test_models_that_write_nothing_are_not_offered():
    def client(*names):
        answer = httpx.Response(200, json={"data": [{"id": name} for name in names]})
        return ChatClient(ChatSettings(base_url="http://m/v1", model=""), transport=httpx.MockTransport(lambda _: answer))

    others = ("text-embedding-nomic", "all-MiniLM-L6-v2", "intfloat/e5-large", "thenlper/gte-large", "dall-e-3", "Qwen3-Reranker-8B")
    assert await client(*others, "qwen2.5-vl").models() == ["qwen2.5-vl"]
    kinds = httpx.Response(200, json={"data": [{"id": "arctic", "type": "embeddings"}, {"id": "q", "type": "vlm"}]})
    asked = ChatClient(ChatSettings(base_url="http://m/v1", model=""), transport=httpx.MockTransport(lambda _: kinds))
    assert await asked.models() == ["q"]
    for names, said in (((), "no model"), (("bge-m3",), "bge-m3")):
        with pytest.raises(PolicyUnavailable, match=f"lists {said}; load one"):
            await client(*names).models()
