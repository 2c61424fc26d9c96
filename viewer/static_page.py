"""Self-contained web pages: charts as SVG, images inside, nothing loaded from anywhere."""

from __future__ import annotations

import html
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from agent.episode import Episode, Turn
from agent.images import ImageFile, UnreadableImage
from agent.messages import Message
from agent.protocol import PYTHON, ToolCall
from agent.records import Rollout
from agent.trajectory import RecordReader, record_files
from viewer.pieces import Piece, pieces

_STYLE = """
:root { --ink: #1c2430; --soft: #5d6b7e; --line: #dfe4ea; --paper: #ffffff; --page: #f5f6f8; --blue: #2459c4; --green: #12805c;
  --red: #b3362b; --orange: #b8690b; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.55 system-ui, "DejaVu Sans", sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 8px; } h2 { font-size: 20px; margin: 40px 0 8px; }
h3 { font-size: 16px; margin: 0 0 8px; } p { margin: 6px 0 12px; max-width: 76ch; } .soft { color: var(--soft); }
section.card, article { background: var(--paper); border: 1px solid var(--line); border-radius: 8px; padding: 16px 18px; margin: 12px 0; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); gap: 12px; margin-bottom: 20px; align-items: start; }
.grid > * { margin: 0; min-width: 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; } td, th { padding: 7px 10px; text-align: right; overflow-wrap: anywhere;
  border-bottom: 1px solid var(--line); } th { font-weight: 600; color: var(--soft); } td:first-child, th:first-child { text-align: left; }
.scroll { overflow-x: auto; } tr.strong td { font-weight: 700; }
pre { background: #f2f4f7; border-radius: 6px; padding: 10px 12px; overflow-x: auto; margin: 6px 0; white-space: pre-wrap;
  overflow-wrap: anywhere; font: 13px/1.45 ui-monospace, "DejaVu Sans Mono", monospace; }
.turn { border-left: 3px solid var(--line); padding-left: 12px; margin: 12px 0; } .turn.model { border-color: var(--blue); }
.turn.tool { border-color: var(--orange); } .who { font-size: 12px; font-weight: 600; letter-spacing: .03em; color: var(--soft); }
img.shown { max-width: 180px; max-height: 180px; border: 1px solid var(--line); border-radius: 4px; margin: 4px 6px 4px 0;
  image-rendering: pixelated; vertical-align: top; } img.shown.large { max-width: min(100%, 420px); max-height: 420px; image-rendering: auto; }
summary { cursor: pointer; } .tag { display: inline-block; padding: 1px 8px; border-radius: 10px; font-size: 12px;
  font-weight: 600; background: #eef1f5; color: var(--soft); margin-left: 6px; }
.good { color: var(--green); } .bad { color: var(--red); } .tag.good { background: #e3f4ec; } .tag.bad { background: #fbe9e7; }
.warn { color: var(--orange); } a.behind { color: inherit; text-decoration: underline dotted; cursor: pointer; }
#browser input, #browser select { font: inherit; padding: 4px 8px; margin: 0 8px 8px 0; } #browser tbody tr { cursor: pointer; }
#browser tbody tr:hover { background: #f2f4f7; } .think, .written { color: var(--soft); white-space: pre-wrap; overflow-wrap: anywhere; } .think { font-style: italic; } svg text { font: 11px system-ui, "DejaVu Sans", sans-serif; fill: #5d6b7e; }
"""
_COLOURS = ("#2459c4", "#12805c", "#b8690b", "#8a3fb0")
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 460, 240, 44, 30, 12, 12


def page(title: str, body: str, *, script: str = "") -> str:
    """A whole HTML document; `script` runs at its end. It loads nothing from anywhere, whatever stands in it."""
    code = f"<script>{script}</script>" if script else ""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'" + ("; script-src 'unsafe-inline'" if script else "")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><main>{body}</main>{code}</body></html>"
    )


def line_chart(
    series: Mapping[str, Sequence[tuple[float, float]]], *, x_label: str, y_range: tuple[float, float] | None = None
) -> str:
    """Lines over numbered steps, as SVG.

    Args:
        series: Name -> points (x, y), in order of x. Empty series are left out.
        x_label: Under the axis.
        y_range: Fixed, or fitted to the points.
    """
    shown = {name: points for name, points in series.items() if points}
    if not shown:
        return '<p class="soft">Nothing was recorded.</p>'
    xs = [x for points in shown.values() for x, _ in points]
    ys = [y for points in shown.values() for _, y in points]
    x_low, x_high = min(xs), max(xs)
    y_low, y_high = y_range or (min(0.0, *ys), max(ys) * 1.05 or 1.0)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low) if x_high > x_low else 0.5
        up = (y - y_low) / (y_high - y_low) if y_high > y_low else 0.5
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _BOTTOM - _TOP)

    parts = []
    for fraction in (0.0, 0.25, 0.5, 0.75, 1.0):
        value = y_low + fraction * (y_high - y_low)
        _, y = place(x_low, value)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e6e9ee"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.2g}</text>')
    for value, anchor in ((x_low, "start"), (x_high, "end")):
        x, _ = place(value, y_low)
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 15}" text-anchor="{anchor}">{value:g}</text>')
    middle = (_LEFT + _WIDTH) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 4}" text-anchor="middle">{html.escape(x_label)}</text>')
    legend = []
    for colour, (name, points) in zip(itertools.cycle(_COLOURS), shown.items(), strict=False):
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        legend.append(f'<span style="color:{colour};margin-right:14px">&#9632; {html.escape(name)}</span>')
    drawing = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(parts)}</svg>'
    return f'<div style="font-size:13px">{"".join(legend)}</div>{drawing}'


def bar_chart(values: Mapping[str, float], *, unit: str = "", share: bool = False) -> str:
    """Horizontal bars with their values, as SVG.

    Args:
        values: Name -> length, not below 0.
        unit: Written after each value.
        share: The values are shares; they are written in percent, and the scale ends at 1.
    """
    if not values:
        return '<p class="soft">Nothing was recorded.</p>'
    longest = 1.0 if share else max(values.values()) or 1.0
    row_px, left, right = 20, 150, 70
    parts = []
    for number, (name, value) in enumerate(values.items()):
        y = number * row_px
        width = (_WIDTH - left - right) * value / longest
        said = f"{100 * value:.1f} %" if share else f"{value:,.4g}{unit}"
        shown = name if len(name) <= 24 else f"{name[:23]}…"
        parts.append(f'<text x="{left - 6}" y="{y + 14}" text-anchor="end">{html.escape(shown)}</text>')
        parts.append(
            f'<rect x="{left}" y="{y + 4}" width="{max(width, 0.5):.1f}" height="{row_px - 7}" fill="{_COLOURS[0]}"/>'
        )
        parts.append(f'<text x="{left + width + 5:.1f}" y="{y + 14}">{html.escape(said)}</text>')
    return f'<svg viewBox="0 0 {_WIDTH} {len(values) * row_px + 4}" role="img">{"".join(parts)}</svg>'


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, strong: int | None = None, markup: bool = False) -> str:
    """A table of plain texts, or of markup; row `strong` stands out."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = ""
    for number, row in enumerate(rows):
        cells = "".join(f"<td>{cell if markup else html.escape(cell)}</td>" for cell in row)
        body += f'<tr class="{"strong" if number == strong else ""}">{cells}</tr>'
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


ShowImage = Callable[[ImageFile], str]
"""Makes the `<img>` of an image."""


def embedded(image: ImageFile, *, is_large: bool = False) -> str:
    """An image with its bytes inside the page; one that is not there, or is none, in words."""
    try:
        return _inside(image, "shown large" if is_large else "shown")
    except (OSError, UnreadableImage) as error:
        return f'<span class="tag bad">an image cannot be shown: {html.escape(str(error))}</span>'


def _inside(image: ImageFile, kind: str) -> str:
    return f'<img class="{kind}" src="{image.data_uri()}" alt="image of {image.size[0]}x{image.size[1]} px">'


def episode_card(
    title: str, episode: Episode, *, gold: str = "", correct: bool | None = None, show: ShowImage = embedded
) -> str:
    """One episode from question to answer, with images, code and output."""
    mark = ""
    if correct is not None:
        mark = f'<span class="tag {"good" if correct else "bad"}">{"right" if correct else "wrong"}</span>'
    stop = f'<span class="tag">{html.escape(episode.stop_reason.value)}</span>'
    expected = f'<span class="tag">expected: {html.escape(gold)}</span>' if gold else ""
    parts = [f"<h3>{html.escape(title)} {mark}{expected}{stop}</h3>"]
    parts += [_message(message, show) for message in episode.opening if message.role != "system"]
    for turn in episode.turns:
        parts.append(_turn(turn))
        if turn.observation is not None:
            parts.append(_message(turn.observation, show, who="sandbox" if _is_code(turn) else "tool"))
    if episode.failure:
        parts.append(f'<p class="bad">Failed, not scored: {html.escape(episode.failure)}</p>')
    return f"<article>{''.join(parts)}</article>"


def _is_code(turn: Turn) -> bool:
    return isinstance(turn.action, ToolCall) and turn.action.name == PYTHON


def _turn(turn: Turn) -> str:
    parts = [_piece(piece) for piece in pieces(turn)] or ["<pre>(nothing)</pre>"]
    return f'<div class="turn model"><div class="who">MODEL</div>{"".join(parts)}</div>'


def _piece(piece: Piece) -> str:
    if piece.kind == "code":
        return f"<pre>{html.escape(piece.text)}</pre>"
    text = html.escape(piece.text.strip())
    if piece.kind == "thought":
        return f'<div class="think">{text}</div>'
    return f"<div>Answer: <strong>{text}</strong></div>" if piece.kind == "answer" else f'<div class="written">{text}</div>'


def _message(message: Message, show: ShowImage, who: str = "question") -> str:
    parts = []
    for part in message.parts():
        if isinstance(part, ImageFile):
            parts.append(show(part))
        elif part.strip():
            shown = html.escape(part.strip())
            parts.append(f"<pre>{shown}</pre>" if who != "question" else f"<div>{shown}</div>")
    kind = "" if who == "question" else "tool"
    return f'<div class="turn {kind}"><div class="who">{who.upper()}</div>{"".join(parts)}</div>'


def rollout_card(rollout: Rollout) -> str:
    """One recorded episode with its facts."""
    facts = rollout.facts
    title = facts.item_id or rollout.episode.episode_id
    if facts.step is not None:
        title = f"step {facts.step} · {title}"
    if facts.sample:
        title += f" · sample {facts.sample}"
    if facts.reward is not None:
        title += f" · reward {facts.reward:.2f}"
    return episode_card(title, rollout.episode, gold=facts.gold, correct=facts.correct)


def write_episodes_page(directory: Path, path: Path, *, limit: int) -> int:
    """Write recorded episodes as one page.

    Returns:
        Number of episodes on it.

    Raises:
        FileNotFoundError: Nothing was recorded there.
    """
    readers = [RecordReader(path) for path in record_files(directory)]
    if not readers:
        raise FileNotFoundError(f"no episodes in {directory}; expected episodes.jsonl or episodes-*.jsonl there")
    rollouts = itertools.chain.from_iterable(reader.rollouts() for reader in readers)
    cards = [rollout_card(rollout) for rollout in itertools.islice(rollouts, limit)]
    left_out = sum(reader.unreadable for reader in readers)
    told = f", {left_out} lines cannot be read and are left out" if left_out else ""
    told = f"{len(cards)} episodes of {html.escape(str(directory))}{told}."
    body = f"<h1>Episodes</h1><p class='soft'>{told}</p>{''.join(cards)}"
    path.write_text(page("Episodes", body), encoding="utf-8")
    return len(cards)
