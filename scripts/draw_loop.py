"""Draw docs/pictures/loop.svg, the picture at the top of the README: updates that follow each other."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

TARGET = Path(__file__).parents[1] / "docs" / "pictures" / "loop.svg"
WIDTH, HEIGHT = 860, 250
STAGES = ("prepare", "restore-state", "tune", "train", "export")
BLUE, GREY, GREEN, INK = "#0072B2", "#f2f4f7", "#009E73", "#1f2933"
HEAD = f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"
 font-family="Helvetica, Arial, sans-serif" font-size="13">
<title>Each update is one pipeline run that starts from the state of the update before</title>
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path d="M0 0 L8 4 L0 8 z" fill="{INK}"/></marker></defs>"""


def main() -> None:
    """Write the picture."""
    parts = [HEAD, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']
    for week in (1, 2, 3):
        left = 20 + (week - 1) * 280
        parts += [
            *box(left, 20, 110, "white", f"data of week {week}"),
            *box(left, 96, 110, BLUE, f"update {week}", "white"),
            *box(left, 172, 110, GREEN, f"model {week}", "white"),
            arrow(left + 55, 56, left + 55, 94),
            arrow(left + 55, 132, left + 55, 170),
            *box(left + 155, 96, 80, GREY, f"state {week}"),
            arrow(left + 110, 114, left + 153, 114),
            arrow(left + 235, 114, left + 278, 114),
        ]
    said = f"one update = dvc repro: {' → '.join(STAGES)}"
    parts += [
        text(20, 236, said, "start"),
        text(WIDTH - 20, 236, "state = model, learner, memory, holdouts", "end"),
        "</svg>",
    ]
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text("\n".join(parts) + "\n", encoding="utf-8")


def box(left: int, top: int, width: int, fill: str, label: str, colour: str = INK) -> list[str]:
    """Return a rectangle with a text in its middle."""
    place = f'x="{left}" y="{top}" width="{width}" height="36" rx="6"'
    return [
        f'<rect {place} fill="{fill}" stroke="{INK}" stroke-width="1"/>',
        text(left + width // 2, top + 23, label, "middle", colour),
    ]


def arrow(x1: int, y1: int, x2: int, y2: int) -> str:
    """Return an arrow from one point to another."""
    return (
        f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{INK}" stroke-width="1.5" '
        'marker-end="url(#tip)"/>'
    )


def text(x: int, y: int, label: str, anchor: str, colour: str = INK) -> str:
    """Return a line of text."""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{colour}">{escape(label)}</text>'


if __name__ == "__main__":
    main()
