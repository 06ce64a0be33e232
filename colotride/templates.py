"""Pages and other texts from templates that lie beside the code, and figures as part of a page."""

import io
from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NO_FILTERS: Mapping[str, Callable[..., Any]] = MappingProxyType({})


def render(package: str, name: str, /, *, filters: Mapping[str, Callable[..., Any]] = NO_FILTERS, **values: Any) -> str:
    """Fill a template; HTML and SVG are escaped, Markdown is not, and a value that is missing is an error.

    Args:
        package: in which the template lies, such as "colotride.evaluation".
        name: of its file, such as "report.html.j2".
        filters: further ones that it uses.
        values: by the names that it uses.
    """
    environment = _environment(package)
    if filters:
        environment = environment.overlay()
        environment.filters = {**environment.filters, **filters}
    return environment.get_template(name).render(**values)


def inline_svg(figure: "Figure") -> str:
    """A figure as an element of a page: its text stays text, and the same figure gives the same characters."""
    from matplotlib import rc_context

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "colotride"}):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]


@cache
def _environment(package: str) -> Environment:
    return Environment(
        loader=PackageLoader(package, "."),
        autoescape=lambda name: not (name or "").endswith(".md.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
    )
