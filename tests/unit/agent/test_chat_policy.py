import json

import httpx
import pytest

from agent.errors import ContextFull, PolicyUnavailable
from agent.images import ImageFile
from agent.messages import Message
from agent.model_keys import model_key
from agent.openai_chat import ChatClient, ChatPolicy, ChatSettings
from tests.conftest import png

QUESTION = [Message("system", "s"), Message("user", "<image>q", (ImageFile(png()),))]


def completion(text: str, finish: str = "stop") -> httpx.Response:
    return httpx.Response(
        200, json={"choices": [{"message": {"content": text}, "finish_reason": finish}], "usage": {"completion_tokens": 3}}
    )


class Server:
    """Answers from a list and remembers the requests."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers, self.bodies = list(answers), []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.bodies.append(json.loads(request.content))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def policy(self, **settings) -> ChatPolicy:
        own = {name: settings.pop(name, default) for name, default in (("max_reply_tokens", 8192), ("primer", ""))}
        settings = {"base_url": "http://model/v1", "model": "m", **settings}
        return ChatPolicy(ChatClient(ChatSettings(**settings), transport=httpx.MockTransport(self)), **own)


async def test_the_history_is_sent_whole_and_images_travel_as_data_uris():
    server = Server(completion("<code>a</code>"), completion("<answer>b</answer>"))
    policy = server.policy()
    await policy.reply(QUESTION)
    await policy.reply([Message("user", "seen")])
    first, second = server.bodies
    assert [m["role"] for m in second["messages"]] == ["system", "user", "assistant", "user"]
    assert second["messages"][2]["content"] == "<code>a</code>"
    assert first["messages"][1]["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
    assert first["stop"] == ["</code>", "</tool_call>"]
    assert first["include_stop_str_in_output"] is True
    assert first["max_tokens"] == 8192


async def test_without_a_token_limit_the_server_decides():
    server = Server(completion("<answer>b</answer>"))
    await server.policy(max_reply_tokens=None).reply(QUESTION)
    assert "max_tokens" not in server.bodies[0]


async def test_a_server_that_cuts_the_stop_string_is_mended():
    reply = await Server(completion("<think>t</think><code>x")).policy(dialect="openai").reply(QUESTION)
    assert reply.text.endswith("<code>x</code>")
    cut = await Server(completion("<code>x", finish="length")).policy().reply(QUESTION)
    assert (cut.text, cut.finish) == ("<code>x", "length")


async def test_the_primer_comes_before_replies_that_follow_an_observation():
    server = Server(completion("<code>a</code>"), completion("go</think><answer>b</answer>"))
    policy = server.policy(primer="<think>")
    assert (await policy.reply(QUESTION)).primer == ""
    reply = await policy.reply([Message("user", "seen")])
    assert reply.primer == "<think>"
    assert server.bodies[1]["messages"][-1] == {"role": "assistant", "content": "<think>"}
    assert server.bodies[1]["continue_final_message"] is True


def test_a_primer_needs_a_server_that_can_continue():
    with pytest.raises(ValueError, match="dialect"):
        Server().policy(dialect="openai", primer="<think>")


async def test_faults_are_retried_and_then_are_an_outage(monkeypatch):
    server = Server(httpx.Response(503), httpx.ConnectError("refused"), completion("<answer>b</answer>"))
    assert (await server.policy().reply(QUESTION)).text == "<answer>b</answer>"
    with pytest.raises(PolicyUnavailable, match="serve 'm'"):
        await Server(httpx.Response(404, text="no such model")).policy().reply(QUESTION)
    with pytest.raises(PolicyUnavailable, match="no chat completion"):
        await Server(httpx.Response(200, json={"choices": []})).policy().reply(QUESTION)
    with pytest.raises(PolicyUnavailable):
        await Server(httpx.Response(200, text="<html>")).policy(attempts=1).reply(QUESTION)


async def test_a_prompt_that_is_too_long_is_the_context_being_full():
    with pytest.raises(ContextFull):
        await Server(httpx.Response(400, text="maximum context length is 512 tokens")).policy().reply(QUESTION)


@pytest.mark.parametrize(
    ("environment", "urls", "sent"),
    [
        ({"MODEL_API_KEY": "mine\n"}, ["http://other:1/v1"], "mine"),
        ({"OPENAI_API_KEY": "theirs"}, ["http://other:1/v1"], "EMPTY"),
        ({"OPENAI_API_KEY": "theirs\n"}, ["https://api.openai.com/v1"], "theirs"),
        ({"OPENAI_API_KEY": "theirs"}, ["http://api.openai.com/v1"], "EMPTY"),
        ({"OPENAI_API_KEY": "theirs"}, ["https://api.openai.com.evil.example/v1"], "EMPTY"),
        ({"OPENAI_API_KEY": "theirs"}, ["https://api.openai.com@evil.example/v1"], "EMPTY"),
        ({"OPENAI_API_KEY": "theirs"}, ["https://api.openai.com:8443/v1"], "EMPTY"),
        ({"OPENAI_API_KEY": "theirs"}, ["https://api.openai.com/v1", "http://other:1/v1"], "EMPTY"),
        ({"OPENAI_API_KEY": "theirs", "OPENAI_BASE_URL": "http://other:1/v1"}, ["http://other:1/v1/"], "theirs"),
        ({"OPENAI_API_KEY": "theirs", "MODEL_API_KEY": "mine"}, ["https://api.openai.com/v1"], "mine"),
        ({"OPENAI_API_KEY": "theirs"}, ["http://[broken"], "EMPTY"),
        ({"OPENAI_API_KEY": "theirs"}, [], "EMPTY"),
    ],
)
def test_a_key_goes_only_to_the_server_that_it_was_given_for(monkeypatch, environment, urls, sent):
    for name in ("MODEL_API_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert model_key(urls) == sent


def test_a_key_is_not_printed():
    assert "secret" not in repr(ChatSettings(base_url="http://x", model="m", api_key="secret"))


def events(*pieces, finish="stop", usage=True):
    lines = [{"choices": [{"delta": {"role": "assistant", "content": ""}}]}]
    lines += [{"choices": [{"delta": {"content": piece}}]} for piece in pieces]
    lines += [{"choices": [{"delta": {}, "finish_reason": finish}]}]
    lines += [{"choices": [], "usage": {"completion_tokens": 7, "prompt_tokens": 30}}] if usage else []
    return "".join(f"data: {json.dumps(line)}\n\n" for line in lines) + "data: [DONE]\n\n"


def streaming(server, seen, **settings):
    given = {"base_url": "http://model/v1", "model": "m", **settings}
    client = ChatClient(ChatSettings(**given), transport=httpx.MockTransport(server))
    return ChatPolicy(client, max_reply_tokens=8192, primer="", on_text=seen.append)


async def test_a_streamed_reply_is_shown_piece_by_piece_and_is_the_same_reply():
    seen = []
    server = Server(httpx.Response(200, text=events("<think>é</think>", "<code>", "x</code>")))
    reply = await streaming(server, seen).reply(QUESTION)
    assert seen == ["<think>é</think>", "<code>", "x</code>"]
    assert (reply.text, reply.finish, reply.num_tokens, reply.num_prompt_tokens) == ("".join(seen), "stop", 7, 30)
    assert server.bodies[0]["stream"] is True
    cut = await streaming(Server(httpx.Response(200, text=events("<code>x", finish="length", usage=False))), []).reply(
        QUESTION
    )
    assert (cut.text, cut.finish) == ("<code>x", "length")


async def test_a_stream_that_breaks_off_is_an_outage_and_one_that_never_begins_is_tried_again():
    half = events("<think>", "hm").split("data: [DONE]")[0] + "data: {broken\n\n"
    with pytest.raises(PolicyUnavailable, match="broke off"):
        await streaming(Server(httpx.Response(200, text=half)), []).reply(QUESTION)
    server = Server(httpx.Response(200, text="data: nonsense\n\n"), httpx.Response(200, text=events("<answer>a</answer>")))
    assert (await streaming(server, []).reply(QUESTION)).text == "<answer>a</answer>"


async def test_token_ids_and_log_probabilities_are_recorded_on_request():
    answer = completion("<answer>b</answer>").json()
    answer["choices"][0] |= {"token_ids": [5, 6], "logprobs": {"content": [{"logprob": -0.1}, {"logprob": -0.2}]}}
    server = Server(httpx.Response(200, json=answer))
    reply = await server.policy(record_tokens=True).reply(QUESTION)
    assert (reply.token_ids, reply.logprobs) == ((5, 6), (-0.1, -0.2))
    assert server.bodies[0]["return_token_ids"] is True


async def test_the_episodes_token_budget_bounds_a_request():
    server = Server(*[completion("<answer>b</answer>")] * 2)
    await server.policy(max_reply_tokens=100).reply(QUESTION, max_tokens=30)
    await server.policy(max_reply_tokens=None).reply(QUESTION, max_tokens=40)
    assert [body["max_tokens"] for body in server.bodies] == [30, 40]


async def test_the_models_of_a_server_are_listed_or_it_is_down():
    answer = httpx.Response(200, json={"data": [{"id": "qwen"}, {"id": "other"}]})
    client = ChatClient(ChatSettings(base_url="http://model/v1", model=""), transport=httpx.MockTransport(lambda _: answer))
    assert await client.models() == ["qwen", "other"]
    down = ChatClient(
        ChatSettings(base_url="http://model/v1", model=""), transport=httpx.MockTransport(lambda _: httpx.Response(500))
    )
    with pytest.raises(PolicyUnavailable, match="is the server up"):
        await down.models()
