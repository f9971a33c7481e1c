"""Make Great Expectations' Data Docs safe to open, and readable offline.

As they come, their pages show names from outside as markup (a GPU's name can run a script), load styles and scripts from
a dozen hosts, and the footer asks for a subscription. Here they keep their text and structure and nothing that acts, get a
style sheet of their own and a plain index, and load nothing from anywhere.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from expectations.checks import Verdict

_BODY = re.compile(r"<body\b[^>]*>(.*)</body>", re.DOTALL | re.IGNORECASE)
_FOOTER = re.compile(r"<footer\b.*?</footer>", re.DOTALL | re.IGNORECASE)
_TAGS = frozenset(
    [
        "a",
        "b",
        "br",
        "caption",
        "code",
        "div",
        "em",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "hr",
        "i",
        "li",
        "nav",
        "ol",
        "p",
        "pre",
        "small",
        "span",
        "strong",
        "sub",
        "sup",
        "table",
        "tbody",
        "td",
        "tfoot",
        "th",
        "thead",
        "tr",
        "u",
        "ul",
    ]
)
_ATTRIBUTES = {
    # Our style sheet hides what opened by a script.
    "*": {"class", "id", "title", "aria-label", "data-toggle"},
    "a": {"href"},
    "td": {"colspan", "rowspan"},
    "th": {"colspan", "rowspan", "scope"},
}


def make_offline(folder: Path, verdicts: Sequence[Verdict]) -> None:
    """Rewrite the pages below `folder` and write its index.html."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    style = resources.files("flows.reporting.report").joinpath("data_docs.css").read_text("utf-8")
    environment = Environment(
        loader=PackageLoader("flows.reporting", "report"),
        autoescape=True,
        undefined=StrictUndefined,
    )
    layout = environment.get_template("data_docs_page.html.j2")
    for page in folder.rglob("*.html"):
        body = _sanitise_body(page.read_text("utf-8"))
        page.write_text(layout.render(title=page.stem, body=body, style=style), "utf-8")
    shutil.rmtree(folder / "static", ignore_errors=True)
    pages = {
        suite.name: sorted(p.relative_to(folder).as_posix() for p in suite.rglob("*.html"))
        for suite in (folder / "validations").iterdir()
    }
    index = environment.get_template("data_docs.html.j2").render(
        verdicts=verdicts, pages=pages, style=style
    )
    (folder / "index.html").write_text(index, encoding="utf-8")


def _sanitise_body(page: str) -> str:
    """What a page of Great Expectations shows, as markup that does nothing."""
    import nh3

    match = _BODY.search(page)
    return nh3.clean(
        _FOOTER.sub("", match[1]) if match else "",
        tags=set(_TAGS),
        attributes=_ATTRIBUTES,
        # Links within the pages are relative; no other leads anywhere.
        url_schemes=set(),
        link_rel=None,
    )
