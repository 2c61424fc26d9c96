"""What a demonstration of a synthetic family is shown is what the loop's own tool shows on a real sandbox."""

import pytest

from agent.images import ImageFile
from agent.protocol import PYTHON
from agent.settings import AgentSettings
from agent.tools import ToolContext, build_tools
from code_sandbox.client import SandboxClient
from data.families import family_names, load_family
from data.families._demonstrations import Runner
from data.families._files import questions

pytestmark = pytest.mark.services


@pytest.mark.parametrize("name", [name for name in family_names() if PYTHON in load_family(name).tools])
async def test_a_demonstrations_code_shows_in_the_sandbox_what_the_demonstration_says(name, sandbox_url):
    compared = 0
    async with SandboxClient(sandbox_url) as client:
        for question in questions(load_family(name), "sft", 8, seed=2, level=1):
            calls = [call for call in question.calls if call.name == PYTHON]
            context = ToolContext(images=(ImageFile.from_pil(question.image),), sandbox=client, settings=AgentSettings())
            tool = build_tools([PYTHON], context)[PYTHON]
            for call, shown in zip(calls, Runner().run(calls, question.image), strict=True):
                seen = (await tool.run(call.arguments)).observation
                assert seen.text == shown.text
                assert [one.pil().tobytes() for one in seen.images] == [one.pil().tobytes() for one in shown.images]
                compared += 1
            await tool.close()
    assert compared >= 2
