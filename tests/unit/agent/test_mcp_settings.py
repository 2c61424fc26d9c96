"""What a recipe says of MCP servers: checked when it is read, and the same behind every door that it passes."""

import argparse
import sys

import pytest

from agent.options import add_agent_options, given_settings, settings_of
from agent.recipes import RecipeError
from agent.settings import AgentSettings
from agent.tools import ToolContext, build_tools
from code_sandbox.redaction import redacted
from evaluation.runs.settings import EvaluationSettings
from reinforcement_learning.settings import RolloutSettings

BLOCK = {
    "files": {"command": ["my-server", "--root", "/data"], "env": ["FILES_KEY"]},
    "web": {
        "url": "https://h/mcp",
        "headers": [{"name": "Authorization", "variable": "WEB_LOGIN"}],
        "offer": ["open"],
        "prefix": "web_",
    },
}


def refused(**server):
    with pytest.raises(RecipeError) as caught:
        settings_of(AgentSettings, {"mcp": {"files": server}})
    return str(caught.value)


def test_a_server_is_a_program_or_an_address_and_a_wrong_name_lists_the_right_ones():
    assert refused() == "mcp.files: give either `command`, a list of a program and its arguments, or `url`"
    assert refused(command=["x"], url="http://h") == refused()
    assert refused(url="h:80/mcp") == "mcp.files: url 'h:80/mcp' does not begin with http:// or https://"
    assert refused(url="http://h", env=["A"]).endswith(
        "`headers` belong to a server with a `url`, `env` to one with a `command`"
    )
    assert "there are: call_timeout_s, command, env, headers, max_listed_chars" in refused(url="http://h", header={})
    assert "there are: name, variable" in refused(url="http://h", headers=[{"name": "A", "variable": "B", "value": "C"}])
    assert refused(command="my-server").startswith("mcp.files.command: Input should be a valid tuple")
    assert refused(command=["x"], prefix="a b").startswith("mcp.files.prefix: String should match pattern")


@pytest.mark.parametrize(
    "server", [{"url": "https://user:canary7f3a9b2c@h/mcp"}, {"command": ["x", "--api-key=canary7f3a9b2c"]}]
)
def test_a_key_in_what_is_recorded_is_refused_without_being_shown(server):
    told = refused(**server)
    assert "which are recorded: put it into a variable" in told
    assert "canary" not in told


@pytest.mark.parametrize("model", [AgentSettings, EvaluationSettings, RolloutSettings])
def test_training_evaluation_and_chat_read_the_same_block_and_a_record_of_it_is_whole(model):
    more = {"benchmark": "vstar", "data": "d", "model": "m"} if model is EvaluationSettings else {}
    settings = model.model_validate({"tools": ["mcp"], "mcp": BLOCK} | more)
    recorded = redacted(settings.model_dump(mode="json"))
    assert recorded == settings.model_dump(mode="json"), "agents of a training read their settings from such a record"
    assert model.model_validate(recorded).mcp == settings.mcp


def test_servers_can_be_given_on_a_command_line():
    parser = argparse.ArgumentParser()
    add_agent_options(parser)
    options = parser.parse_args(["--tools", "python,mcp", "--mcp", "{files: {command: [my-server]}}"])
    assert AgentSettings.model_validate(given_settings(options)).mcp["files"].command == ("my-server",)
    with pytest.raises(SystemExit):
        parser.parse_args(["--mcp", "my-server"])


def test_the_tool_without_servers_says_what_it_needs():
    with pytest.raises(ValueError, match=r"needs servers: set `mcp:`, such as \{files: \{command: \[my-server\]\}\}"):
        build_tools(["mcp"], ToolContext())


def test_where_the_library_is_missing_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "agent.tools._mcp_session", None)
    settings = AgentSettings(tools=("mcp",), mcp={"files": {"command": ["a-server-that-nobody-started"]}})
    with pytest.raises(ValueError, match=r"needs the package mcp: pip install 'deepeyes\[mcp\]'"):
        build_tools(["mcp"], ToolContext(settings=settings))
