"""Draw docs/images/attacks.svg, every attack of the evaluation in one picture, from the report's own drawings.

Example:
    python scripts/draw_attacks.py
"""

import sys
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from colotride.evaluation.attack_descriptions import DESCRIPTIONS
from colotride.evaluation.attack_drawings import HEIGHT, SCENES, WIDTH, picture
from colotride.io import write_atomically

PAGE = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{ width }} {{ height }}" width="{{ width }}" height="{{ height }}">
<style>
  svg { --page: #ffffff; --ink: #1d2733; --faint: #8493a3; --line: #d8dee5; --plane: #f7f9fb; --own: #2f6db3; --attack: #c8324a }
  @media (prefers-color-scheme: dark) { svg { --page: #12171d; --ink: #e4e9ef; --faint: #7f8d9c; --line: #2f3944; --plane: #1a2129; --own: #6ba6e8; --attack: #ff7389 } }
  .page { fill: var(--page) } .heading { font: 600 13.5px system-ui, Arial, sans-serif; fill: var(--ink) }
  .caption, .legend { font: 12px system-ui, Arial, sans-serif; fill: var(--ink) }
{% include "attack.css.j2" %}
</style>
<rect class="page" width="{{ width }}" height="{{ height }}" rx="10"/>
{% for cell in cells %}<text class="heading" x="{{ cell.x }}" y="{{ cell.y - 26 }}">{{ cell.heading }}</text>
<text class="caption" x="{{ cell.x }}" y="{{ cell.y - 9 }}">{{ cell.caption }}</text>
{{ cell.picture | safe }}
{% endfor %}<g class="attack legend" transform="translate({{ margin }} {{ height - 46 }})">
<circle class="same" cx="6" cy="0" r="5"/><rect class="other" x="246" y="-4.5" width="9" height="9"/>
<circle class="start" cx="476" cy="0" r="7"/><circle class="end" cx="496" cy="0" r="7"/>
<circle class="target" cx="8" cy="24" r="8"/><circle class="reach" cx="251" cy="24" r="8"/>
</g>
<g class="legend" transform="translate({{ margin }} {{ height - 42 }})">
<text x="22" y="0">gallery image of the query's class</text><text x="266" y="0">gallery image of another class</text>
<text x="512" y="0">what the attack moves: before, after</text>
<text x="22" y="24">the image that the attack is about</text><text x="266" y="24">whatever lies inside comes earlier in the results than the image on the circle</text>
</g>
</svg>
"""

MARGIN, GAP, HEAD, COLUMNS = 24, 28, 52, 3


def draw() -> str:
    """The whole picture."""
    described = {one.drawing: one for one in reversed(DESCRIPTIONS)}
    cells = []
    for number, (attack, scene) in enumerate(SCENES.items()):
        x = MARGIN + number % COLUMNS * (WIDTH + GAP)
        y = MARGIN + HEAD + number // COLUMNS * (HEIGHT + HEAD + GAP)
        heading = f"{attack}  {described[attack].name.partition(', distance')[0]}"
        cells.append({"x": x, "y": y, "heading": heading, "caption": scene.title, "picture": picture(attack, x=x, y=y)})
    rows = -(-len(SCENES) // COLUMNS)
    width = 2 * MARGIN + COLUMNS * WIDTH + (COLUMNS - 1) * GAP
    height = 2 * MARGIN + rows * (HEIGHT + HEAD + GAP) + 44
    # The page includes a part of the report's.
    loader = PackageLoader("colotride.evaluation", ".")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string(PAGE)
    return template.render(cells=cells, width=width, height=height, margin=MARGIN)


if __name__ == "__main__":
    path = Path(__file__).parents[1] / "docs" / "images" / "attacks.svg"
    write_atomically(path, draw().encode())
    sys.stdout.write(f"written: {path}\n")
