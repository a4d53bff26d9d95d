"""The page for people: self-contained, printable, every word escaped. Pure."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from audit.out.evidence.dossier import Dossier

_PAGES = Environment(
    loader=PackageLoader("audit.out.evidence", "."),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(of: Dossier, checkpoint: dict[str, Any]) -> str:
    """`checkpoint`: origin, size, root (hex)."""
    return _PAGES.get_template("page.html").render(of=of, checkpoint=checkpoint)
