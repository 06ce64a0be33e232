"""Histograms, curves and images of the report, ready for its template."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from colotride.evaluation.examples import RetrievalExample
from colotride.evaluation.measurement import Measurement
from colotride.evaluation.table import figure_text

BINS, WIDTH, HEIGHT = 40, 200, 70


def histograms(ranks: Mapping[str, Mapping[str, Tensor]]) -> list[dict[str, Any]]:
    """Histograms of how far ranks moved, on one scale, as rectangles 200 wide and 70 high.

    Args:
        ranks: by attack, the percentile ranks `before` and `after` it, one per image.
    """
    changes = {name: (values["after"] - values["before"]).double().cpu() for name, values in ranks.items()}
    shares = {name: change.histc(BINS, -100, 100) / len(change) for name, change in changes.items()}
    tallest = max(float(share.max()) for share in shares.values())
    step = WIDTH / BINS
    return [
        {
            "name": name,
            "mean": f"{float(changes[name].mean()):+.1f}".replace("-", "−"),
            "tallest": f"{100 * float(share.max()):.0f} %",
            "bars": [
                {
                    "x": index * step,
                    "width": step - 0.4,
                    "y": round(HEIGHT * (1 - value / tallest), 2),
                    "height": round(HEIGHT * value / tallest, 2),
                }
                for index, value in enumerate(share.tolist())
                if value
            ],
        }
        for name, share in shares.items()
    ]


def line_chart(
    places: Sequence[float],
    scores: Mapping[str, Sequence[float]],
    intervals: Mapping[str, Sequence[tuple[float, float]]] | None = None,
) -> list[dict[str, Any]]:
    """Scores in percent against something, as lines in a field 200 wide and 70 high.

    Args:
        places: of the points on the axis, in increasing order.
        scores: by name, one for each place.
        intervals: by name, where they are known; drawn as a band behind the line.
    """
    low, high = places[0], places[-1]
    across = [round(WIDTH * (place - low) / (high - low), 2) if high > low else 0.0 for place in places]

    def points(values: Iterable[float], xs: Sequence[float]) -> str:
        return " ".join(f"{x},{round(HEIGHT * (1 - value / 100), 2)}" for x, value in zip(xs, values, strict=True))

    lines = []
    for name, values in scores.items():
        ends = (intervals or {}).get(name)
        band = ""
        if ends:
            lower, upper = zip(*ends, strict=True)
            band = points([*lower, *reversed(upper)], [*across, *reversed(across)])
        lines.append({"name": name, "line": points(values, across), "band": band})
    return lines


def images_of(example: RetrievalExample) -> dict[str, Any]:
    """An example whose pixels are addresses that hold the images themselves."""
    lists = {
        when: [
            {"pixels": image_address(one.pixels), "class_name": one.class_name, "correct": one.correct}
            for one in getattr(example, when)
        ]
        for when in ("before", "after")
    }
    return {
        "query": example.query,
        "class_name": example.class_name,
        "shift": example.shift,
        "pixels": image_address(example.pixels),
        "perturbation": image_address(example.perturbation),
        **lists,
    }


def measured(measurement: Measurement) -> dict[str, Any]:
    """A measurement whose figures are text."""
    return {
        "name": measurement.name,
        "title": measurement.title,
        "meaning": measurement.meaning,
        "columns": measurement.columns,
        "rows": [(name, [figure_text(one) for one in figures.values()]) for name, figures in measurement.rows.items()],
        "calls": measurement.calls,
        "seconds": f"{measurement.seconds:.0f}",
    }


def image_address(pixels: Float[Tensor, "channels height width"]) -> str:
    """An address that holds an image itself, as PNG; pixels in [0, 1], one or three channels."""
    return f"data:image/png;base64,{base64.b64encode(png((pixels * 255).round().to(torch.uint8))).decode()}"


def png(pixels: UInt8[Tensor, "channels height width"]) -> bytes:
    """An image of one or three channels as a PNG file."""
    array = pixels.permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(buffer, format="PNG")
    return buffer.getvalue()
