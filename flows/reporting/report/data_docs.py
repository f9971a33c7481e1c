"""Make Great Expectations' Data Docs readable offline.

As they come, their pages load styles and scripts from a dozen hosts, the index is drawn by one of
those scripts, and the footer asks for a subscription. Here they get a style sheet of their own
and a plain index, and load nothing from anywhere.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from expectations.checks import Verdict

_FOREIGN = re.compile(
    r"<script\b[^>]*>.*?</script>|<link\b[^>]*>|<footer\b.*?</footer>|<img\b[^>]*>",
    re.DOTALL | re.IGNORECASE,
)


def make_offline(folder: Path, verdicts: Sequence[Verdict]) -> None:
    """Rewrite the pages below `folder` and write its index.html."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    style = resources.files("flows.reporting.report").joinpath("data_docs.css").read_text("utf-8")
    for page in folder.rglob("*.html"):
        text = _FOREIGN.sub("", page.read_text("utf-8"))
        page.write_text(text.replace("</head>", f"<style>{style}</style></head>", 1), "utf-8")
    shutil.rmtree(folder / "static", ignore_errors=True)
    environment = Environment(
        loader=PackageLoader("flows.reporting", "report"),
        autoescape=True,
        undefined=StrictUndefined,
    )
    pages = {
        suite.name: sorted(p.relative_to(folder).as_posix() for p in suite.rglob("*.html"))
        for suite in (folder / "validations").iterdir()
    }
    index = environment.get_template("data_docs.html.j2").render(
        verdicts=verdicts, pages=pages, style=style
    )
    (folder / "index.html").write_text(index, encoding="utf-8")
