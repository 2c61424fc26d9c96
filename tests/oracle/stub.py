"""One judge for both sides: it answers by the item that is being scored, whatever the prompt's words are.

Used by our scoring through a fake wire, and by the reference in an environment of its own; it imports nothing.
"""

import re

_NUMBER = re.compile(r"#q(\d+)#")


class StubJudge:
    """Replies from a table: number -> {stage: reply}. The stage is told by the prompt's words, the number by `item` or else by the
    mark `#q7#` that an answer carries."""

    model = "stub"
    system_prompt = ""

    def __init__(self, table):
        self.table = {str(number): replies for number, replies in table.items()}
        self.item = None
        """The number of the item that is being scored, where it is known."""

    def working(self):
        return True

    def reply(self, prompt):
        numbers = _NUMBER.findall(prompt)
        if self.item is None and not numbers:
            return "Z"
        replies = self.table[numbers[-1] if self.item is None else str(self.item)]
        if "【参考答案】" in prompt:  # the fork's verdict
            return "\\boxed{Yes}" if replies.get("right") else "\\boxed{No}"
        if "Your verdict is CORRECT" in prompt:  # ours
            return "CORRECT" if replies.get("right") else "INCORRECT"
        verdict = "Judgement" in prompt or "Reply with 1" in prompt
        return replies["same"] if verdict else replies["extract"]

    def generate(self, prompt, **_):
        return self.reply(prompt).strip()  # as the reference's client of an API does
