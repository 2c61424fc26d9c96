"""Spans of episodes and verdicts, with OpenTelemetry's own SDK; and that nobody pays for them who did not ask."""

import os
import subprocess
import sys

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

import agent.setup
import judge.client
from agent.errors import ToolUnavailable
from agent.messages import Message
from agent.settings import AgentSettings
from agent.setup import open_setup
from agent.testing import ScriptedPolicy
from code_sandbox.testing import FakeSandbox, LostSandbox
from code_sandbox.wire import CellError, ExecuteResult
from judge.client import Judge, JudgeSettings
from tests.conftest import ROOT

CODE = "<code>\n```python\nprint(secret)\n```\n</code>"


@pytest.fixture
def spans(monkeypatch):
    """What was traced so far, in the order of ending."""
    memory, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    for room in (agent.setup, judge.client):
        monkeypatch.setattr(room, "tracer", lambda: provider.get_tracer("test"))
    return memory.get_finished_spans


async def played(*replies, sandbox):
    setup = open_setup(AgentSettings(tools=("python",)), sandbox=sandbox)
    return await setup.play([Message("user", "q")], ScriptedPolicy(*replies), images=())


async def test_an_episode_is_a_tree_of_episode_turns_replies_and_calls(spans):
    wrong = ExecuteResult(status="error", error=CellError(name="NameError", message="v", traceback="t"))
    episode = await played(CODE, CODE, "<answer>a</answer>", sandbox=FakeSandbox([ExecuteResult(status="ok"), wrong]))
    assert [span.name for span in spans()] == [
        "chat", "execute_tool python", "turn", "chat", "execute_tool python", "turn", "chat", "turn", "invoke_agent deepeyes",
    ]  # fmt: skip
    by_id = {span.context.span_id: span.name for span in spans()}
    parents = {(span.name, by_id[span.parent.span_id] if span.parent else None) for span in spans()}
    assert parents == {
        ("invoke_agent deepeyes", None), ("turn", "invoke_agent deepeyes"), ("chat", "turn"), ("execute_tool python", "turn"),
    }  # fmt: skip
    whole, good, bad = spans()[-1], spans()[1], spans()[4]
    assert dict(whole.attributes) == {
        "gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "deepeyes", "gen_ai.conversation.id": episode.episode_id,
        "gen_ai.usage.output_tokens": episode.num_tokens, "deepeyes.stop_reason": "answered", "deepeyes.turns": 3,
    }  # fmt: skip
    assert dict(good.attributes) == {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "python", "gen_ai.tool.type": "function"}
    assert (bad.status.status_code, bad.attributes["error.type"]) == (StatusCode.ERROR, "ToolError")
    assert spans()[0].attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert "secret" not in str([span.to_json() for span in spans()]), "what was written is in records, not in traces"


async def test_an_outage_marks_the_call_and_the_episode(spans):
    await played(CODE, sandbox=LostSandbox())
    failed = {span.name: span.attributes.get("error.type") for span in spans() if span.status.status_code is StatusCode.ERROR}
    assert failed.keys() == {"execute_tool python", "invoke_agent deepeyes"}
    assert set(failed.values()) <= {"SandboxAway", ToolUnavailable.__name__}


async def test_a_verdict_is_a_span_with_its_label(spans):
    scorer = Judge(JudgeSettings())
    await scorer.judge("B", "B", question="Which?")
    await scorer.aclose()
    (span,) = spans()
    assert span.name == "judge"
    assert span.attributes["gen_ai.evaluation.name"] == "correctness"
    assert span.attributes["gen_ai.evaluation.score.label"] == "correct"
    assert "deepeyes.decided_by" in span.attributes


PLAY = """
import asyncio, sys
from agent.messages import Message
from agent.settings import AgentSettings
from agent.setup import open_setup
from agent.testing import ScriptedPolicy
setup = open_setup(AgentSettings(tools=(), prompt="direct"))
asyncio.run(setup.play([Message("user", "q")], ScriptedPolicy("<answer>a</answer>"), images=()))
sys.stderr.write("imported" if any(name.startswith("opentelemetry") for name in sys.modules) else "not imported")
"""


@pytest.mark.parametrize(
    ("variables", "printed", "said"),
    [
        ({}, "", "not imported"),
        ({"OTEL_TRACES_EXPORTER": "none"}, "", "not imported"),
        ({"OTEL_TRACES_EXPORTER": "console", "OTEL_SDK_DISABLED": "true"}, "", "not imported"),
        ({"OTEL_TRACES_EXPORTER": "console"}, '"service.name": "deepeyes"', "imported"),
        ({"OTEL_TRACES_EXPORTER": "console", "OTEL_SERVICE_NAME": "mine"}, '"service.name": "mine"', "imported"),
        ({"OTEL_TRACES_EXPORTER": "fax"}, "", "names 'fax', which is not installed; there are: console, otlp"),
    ],
)
def test_the_standard_variables_turn_it_on_and_without_them_nothing_is_imported(variables, printed, said):
    env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", PLAY], cwd=ROOT, env=env | variables, capture_output=True, text=True, check=True
    )
    assert printed in done.stdout
    assert ("invoke_agent deepeyes" in done.stdout) == bool(printed)
    assert said in done.stderr
