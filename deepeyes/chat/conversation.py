"""A conversation: each question is an episode of its own, which begins with all that was said before it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from agent.chat_formats import begins_replies, image_rule_for
from agent.episode import Episode, Outage, Turn
from agent.images import ImageFile
from agent.messages import Message, escape, shown
from agent.openai_chat import ChatClient, ChatPolicy
from agent.protocol import PYTHON
from agent.records import RolloutFacts
from agent.settings import AgentSettings
from agent.setup import AgentSetup, Kept, question
from agent.tools import EpisodeState
from agent.trajectory import TrajectoryWriter
from code_sandbox.errors import SandboxError
from deepeyes.chat.events import EpisodeEnded, Event, QuestionAsked, TextWritten, TurnObserved, TurnReplied
from deepeyes.chat.kept_session import KeptSession

STOPPED = Outage(reason="Stopped: by the one who asked")


def setup_for(setup: AgentSetup, settings: AgentSettings, client: ChatClient) -> AgentSetup:
    """The setup under these settings, as the client's model wants to be asked and shown images.

    Raises:
        LookupError, ValueError: As `AgentSetup.under`.
    """
    model = client.settings.model
    can_prime = client.settings.can_prime and not begins_replies(model)
    return setup.under(settings, image_rule=image_rule_for(model, settings.image_max_pixels), can_prime=can_prime)


async def missing_sandbox(setup: AgentSetup) -> str:
    """What to do about a sandbox that does not answer; empty if one answers, or none is needed."""
    if setup.sandbox is None or await setup.sandbox.available():
        return ""
    try:
        await setup.sandbox.health()
    except SandboxError as error:
        return f"{error}; without Python: --tools ''"
    return ""


class Conversation:
    """Questions to one model, one after the other, with one sandbox session.

    Args:
        setup: Of the agent; not closed with the conversation.
        client: Of the model's server; likewise.
        on_event: Is told what happens, as it happens.
        out: Folder in which each question is recorded as an episode; None records nothing.
    """

    def __init__(
        self,
        setup: AgentSetup,
        client: ChatClient,
        *,
        on_event: Callable[[Event], None],
        out: TrajectoryWriter | None = None,
    ) -> None:
        self.setup = setup
        self._client = client
        self._on_event = on_event
        self._out = out
        self._session = None if setup.sandbox is None else KeptSession(setup.sandbox)
        self._kept = Kept(sandbox=self._session, state=EpisodeState(keeps_sessions=True))
        self._past: tuple[Message, ...] = ()
        self._images: tuple[ImageFile, ...] = ()
        self._unanswered: tuple[ImageFile, ...] = ()
        """Of a question that an outage or its asker ended before there was a reply; they go with the next one."""

    @property
    def num_images(self) -> int:
        """Those of all questions so far."""
        return len(self._images) + len(self._unanswered)

    async def ask(self, text: str, images: Sequence[ImageFile] = ()) -> Episode:
        """Play one question from its opening to its end. An outage does not raise: it ends the episode.

        Cancelling it stops the episode, which is recorded as far as it came.

        Args:
            text: Of the question.
            images: That were added with it; those of earlier questions are still there.

        Raises:
            UnreadableImage: An image is none; nothing was asked.
        """
        added = self._unanswered + tuple(images)
        opening = await asyncio.to_thread(self._opening, text, added)
        self._images, self._unanswered = self._images + added, ()
        turns: list[Turn] = []
        self._on_event(QuestionAsked(opening=opening, text=text, images=added))
        started = time.monotonic()
        try:
            episode = await self.setup.play(
                opening,
                self._policy(opening, turns),
                images=self._images,
                kept=self._kept,
                on_turn=lambda turn: self._tell(turn, turns),
            )
        except asyncio.CancelledError:
            episode = Episode(opening=opening, turns=turns, end=STOPPED, wall_s=time.monotonic() - started)
            await self._end(episode, text, added)
            raise
        await self._end(episode, text, added)
        return episode

    async def aclose(self) -> None:
        """End the session with the sandbox, and those with other servers of tools."""
        if self._session is not None:
            await self._session.end()
        for session in self._kept.state.sessions.values():
            await session.aclose()

    def _opening(self, text: str, images: tuple[ImageFile, ...]) -> tuple[Message, ...]:
        if not self._past:
            return self.setup.opening(question(text, images))
        if images and PYTHON in self.setup.settings.tools_on:
            first = len(self._images) + 1
            names = ", ".join(f"image_{number}" for number in range(first, first + len(images)))
            text = f"{text}\n\n(In Python: {names}.)"
        message, prompt = shown(question(text, images), self.setup.image_rule), self.setup.prompt
        if prompt is not None:
            message = replace(message, text=prompt.question(message.text))
        last = self._past[-1]
        if last.role != "user":
            return (*self._past, message)
        # A question that came to nothing ends with an observation, and templates want the two sides to alternate.
        joined = Message("user", f"{last.text}\n\n{message.text}", last.images + message.images)
        return (*self._past[:-1], joined)

    def _policy(self, opening: Sequence[Message], turns: Sequence[Turn]) -> ChatPolicy:
        begun = -1

        def on_text(piece: str) -> None:
            nonlocal begun
            if begun < len(turns):
                begun = len(turns)
                if turns or any(message.role == "assistant" for message in opening):
                    piece = self.setup.primer + piece
            self._on_event(TextWritten(piece))

        most = self.setup.settings.max_reply_tokens
        return ChatPolicy(self._client, max_reply_tokens=most, primer=self.setup.primer, on_text=on_text)

    def _tell(self, turn: Turn, turns: list[Turn]) -> None:
        if turn.observation is None:
            turns.append(turn)
            self._on_event(TurnReplied(len(turns), turn))
        else:
            turns[-1] = turn
            self._on_event(TurnObserved(len(turns), turn))

    async def _end(self, episode: Episode, text: str, added: tuple[ImageFile, ...]) -> None:
        if episode.turns:
            self._past = _said(episode)
        else:
            # A question without a reply is no part of the conversation; its images may not have been the reason.
            self._images = self._images[: len(self._images) - len(added)]
            self._unanswered = added if episode.failed else ()
        recorded, problem = None, ""
        if self._out is not None:
            try:
                facts = RolloutFacts(source="chat", question=text)
                await asyncio.to_thread(self._out.write, episode, facts)
                recorded = self._out.directory
            except OSError as error:
                problem = f"the episode could not be recorded: {error}"
        self._on_event(EpisodeEnded(episode=episode, recorded=recorded, problem=problem))


def _said(episode: Episode) -> tuple[Message, ...]:
    """What the next question begins with."""
    past = list(episode.opening)
    for turn in episode.turns:
        past.append(Message("assistant", escape(turn.reply.primer + turn.reply.text)))
        if turn.observation is not None:
            past.append(turn.observation)
    return tuple(past)
