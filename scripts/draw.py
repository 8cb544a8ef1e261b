#!/usr/bin/env python3
"""Draws the state machines from their tables: docs/call-states.svg, docs/turn-states.svg, docs/transfer-states.svg and
docs/session-states.svg (a realtime model's).

States stand in a row. What leads to the right runs above them, what leads back below, each on a track of its own, so
lines may cross but labels never meet; events that change nothing but the data are written inside their state.
`--check` draws nothing and fails when a file is not what the tables say.
"""

import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from textwrap import wrap

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from trunkline.agents import turns  # noqa: E402
from trunkline.agents.realtime import sessions  # noqa: E402
from trunkline.gateway import call, transfer, transfer_steps, transfer_way  # noqa: E402

BOX, GAP, MARGIN = 190, 110, 24
LINE = 15  # of text
TRACK = 12  # between a label's lines and the next track
LABEL_CHARS = 34

Edges = Mapping[tuple[str, str], list[str]]


@dataclass
class Lane:
    """The tracks on one side of the row of states."""

    tracks: list[tuple[int, int, list[str]]] = field(default_factory=list)
    """(from, to, the label's lines), the nearest first."""

    @property
    def height(self) -> int:
        return sum(self.offsets[-1:]) + LINE if self.tracks else 0

    @property
    def offsets(self) -> list[int]:
        """How far each track lies from the states."""
        far, offsets = 14, list[int]()
        for _, _, lines in self.tracks:
            far += LINE * len(lines) + TRACK
            offsets.append(far)
        return offsets

    def port(self, track: int, state: int) -> float:
        """Where on its box a track begins or ends: what comes from the left stands left, the nearest outermost."""
        left = [t for t, (a, b, _) in enumerate(self.tracks) if max(a, b) == state]
        right = [t for t, (a, b, _) in enumerate(self.tracks) if min(a, b) == state]
        order = left + right[::-1]
        return (order.index(track) + 1) / (len(order) + 1)


def draw(title: str, states: list[str], edges: Edges, notes: Iterable[str]) -> str:
    forward, back, inside = Lane(), Lane(), dict[str, list[str]]()
    for (start, end), events in sorted(edges.items(), key=lambda e: _span(states, *e[0])):
        if start == end:
            inside[start] = wrap(" · ".join(events), 26, break_long_words=False)
            continue
        a, b = states.index(start), states.index(end)
        lines = wrap(" · ".join(events), LABEL_CHARS * abs(b - a), break_long_words=False)
        (forward if a < b else back).tracks.append((a, b, lines))
    box_height = 36 + LINE * max((len(lines) for lines in inside.values()), default=0) + 8
    top = MARGIN + 30 + forward.height
    bottom = top + box_height
    notes = list(notes)
    width = 2 * MARGIN + len(states) * BOX + (len(states) - 1) * GAP
    height = bottom + back.height + LINE * len(notes) + 2 * MARGIN
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="12" fill="#1d2733">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#47617d"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="{MARGIN}" y="{MARGIN + 8}" font-size="16" font-weight="bold">{escape(title)}</text>',
    ]
    labels: list[str] = []
    for lane, edge_y, side in ((forward, top, -1), (back, bottom, 1)):
        for track, ((a, b, lines), offset) in enumerate(zip(lane.tracks, lane.offsets, strict=True)):
            x1, x2 = (_left(i) + BOX * lane.port(track, i) for i in (a, b))
            y = edge_y + side * offset
            path = f"M{x1:.0f} {edge_y}V{y}H{x2:.0f}V{edge_y + side * 2}"
            out.append(f'<path d="{path}" fill="none" stroke="#47617d" stroke-width="1.2" marker-end="url(#tip)"/>')
            first = y - 7 - LINE * (len(lines) - 1)
            for n, line in enumerate(lines):
                labels.append(_text((x1 + x2) / 2, first + LINE * n, line, halo=True))
    out += labels
    for i, state in enumerate(states):
        out.append(
            f'<rect x="{_left(i)}" y="{top}" width="{BOX}" height="{box_height}" rx="8" fill="#eef3f9" '
            'stroke="#1d2733" stroke-width="1.4"/>'
        )
        out.append(_text(_left(i) + BOX / 2, top + 22, state, weight="bold", size=14))
        for n, line in enumerate(inside.get(state, ())):
            out.append(_text(_left(i) + BOX / 2, top + 42 + LINE * n, line, size=11, fill="#47617d"))
    for n, note in enumerate(notes):
        out.append(f'<text x="{MARGIN}" y="{bottom + back.height + MARGIN + LINE * (n + 1)}">{escape(note)}</text>')
    return "\n".join([*out, "</svg>", ""])


def _left(state: int) -> int:
    return MARGIN + state * (BOX + GAP)


def _span(states: list[str], start: str, end: str) -> tuple[int, int]:
    a, b = states.index(start), states.index(end)
    return abs(b - a), min(a, b)


def _text(
    x: float, y: float, text: str, *, size: int = 12, weight: str = "normal", fill: str = "#1d2733", halo: bool = False
) -> str:
    around = ' stroke="#fff" stroke-width="4" paint-order="stroke"' if halo else ""
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="middle" font-size="{size}" font-weight="{weight}" '
        f'fill="{fill}"{around}>{escape(text)}</text>'
    )


def call_states() -> str:
    edges: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (state, event), to in call.TRANSITIONS.items():
        edges[state.name, to.name].append(event.__name__)
    notes = (
        "From trunkline/gateway/call.py by scripts/draw.py. Inside a state: events after which it stays.",
        "Every other pair of state and event is ignored, by name (IGNORED): callbacks come in any order, and twice.",
    )
    return draw("A call", [state.name for state in call.State], edges, notes)


def turn_states() -> str:
    edges: dict[tuple[str, str], list[str]] = defaultdict(list)
    for state, rows in turns.TABLE.items():
        for event, row in rows.items():
            for to in row.leads_to:
                edges[state.name, to.name].append(event.__name__)
    always = [f"{event.__name__} → {_targets(row.leads_to)}" for event, row in turns.ALWAYS.items()]
    notes = (
        "From trunkline/agents/turns.py by scripts/draw.py. Inside a state: events after which it may stay.",
        f"In every state: {'; '.join(always)}. What has no row there is ignored.",
    )
    return draw("Taking turns", [state.name for state in turns.State], edges, notes)


def transfer_states() -> str:
    """What brings the caller back or away from every state is said below: drawn, it would hide the ways forward."""
    edges: dict[tuple[str, str], list[str]] = defaultdict(list)
    everywhere = {transfer_steps.CallerLeft, transfer_steps.CallerLost, transfer_steps.Cancel}
    for state, rows in transfer.TABLE.items():
        for event, row in rows.items():
            for to in row.leads_to:
                if event not in everywhere:
                    edges[state.name, to.name].append(event.__name__)
    edges["READY", "REFERRING"] = edges["READY", "DIALLING"] = ["begin"]
    notes = (
        "From trunkline/gateway/transfer.py by scripts/draw.py. Inside a state: events after which it may stay.",
        "Not drawn: CallerLeft and CallerLost lead to ENDED (lost while the carrier transfers: only noted), "
        "Cancel to RETURNED.",
        "Every other pair of state and event is ignored, by name (IGNORED). JOINED: with a person, through us. "
        "ENDED: with a person through the carrier, or gone. RETURNED: back with the AI agent.",
    )
    return draw("A transfer", [state.name for state in transfer_way.State], edges, notes)


def session_states() -> str:
    edges: dict[tuple[str, str], list[str]] = defaultdict(list)
    for state, rows in sessions.TABLE.items():
        for event, row in rows.items():
            for to in row.leads_to:
                edges[state.name, to.name].append(event.__name__)
    notes = (
        "From trunkline/agents/realtime/sessions.py by scripts/draw.py. Inside a state: after which it may stay.",
        f"In every state: {', '.join(event.__name__ for event in sessions.ALWAYS)} → OVER. What has no row there is "
        "ignored.",
    )
    return draw("A realtime model's sessions", [state.name for state in sessions.State], edges, notes)


def _targets(states: tuple[turns.State, ...]) -> str:
    return "any" if len(states) == len(turns.State) else ", ".join(state.name for state in states)


def main(arguments: list[str]) -> int:
    wrong = 0
    drawn = {
        "call-states": call_states(),
        "turn-states": turn_states(),
        "transfer-states": transfer_states(),
        "session-states": session_states(),
    }
    for name, text in ((f"{name}.svg", text) for name, text in drawn.items()):
        path = ROOT / "docs" / name
        if arguments != ["--check"]:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            print(f"docs/{name} is not what the tables say: run scripts/draw.py", file=sys.stderr)
            wrong = 1
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
