"""One judge for both sides: it answers by the number that an answer carries, whatever the prompt's words are.

Used by our scoring through a fake wire, and by the reference in an environment of its own; it imports nothing.
"""

import re

_NUMBER = re.compile(r"#q(\d+)#")


class StubJudge:
    """Replies from a table: number -> {stage: reply}. A prompt of the verdict stage is told by its words."""

    model = "stub"
    system_prompt = ""

    def __init__(self, table):
        self.table = {str(number): replies for number, replies in table.items()}

    def working(self):
        return True

    def reply(self, prompt):
        numbers = _NUMBER.findall(prompt)
        if not numbers:
            return "Z"
        replies = self.table[numbers[-1]]
        verdict = "Judgement" in prompt or "Reply with 1" in prompt
        return replies["same"] if verdict else replies["extract"]

    def generate(self, prompt, **_):
        return self.reply(prompt)
