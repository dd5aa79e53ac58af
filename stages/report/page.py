"""Sections as one HTML page and a dataset card as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from stages.report.draw.svg import CSS
from stages.report.section import Section
from stages.report.verdict import Finding

_MARKS = {"good": "+", "bad": "−", "open": "?"}
_MEANINGS = {"good": "speaks for it", "bad": "speaks against it", "open": "open"}


def render_page(
    title: str,
    findings: Sequence[Finding],
    facts: Mapping[str, str],
    sections: Sequence[Section],
    recipe: Mapping[str, Any],
) -> str:
    """The whole page as HTML that loads nothing: style and drawings are in it, scripts are not."""
    return (
        _environment(autoescape=True)
        .get_template("page.html.jinja")
        .render(
            title=title,
            findings=findings,
            marks=_MARKS,
            meanings=_MEANINGS,
            facts=facts,
            sections=sections,
            chart_css=CSS,
            recipe=_yaml(recipe),
        )
    )


def render_table(title: str, table: Any) -> str:
    """A `stages.report.compared.Compared` as a page of its own."""
    return _environment(autoescape=True).get_template("table.html.jinja").render(title=title, table=table)


def render_card(header: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """A Hugging Face dataset card: YAML header, then Markdown."""
    template = _environment(autoescape=False).get_template("card.md.jinja")
    return template.render(header=_yaml(header), **values)


def _environment(*, autoescape: bool) -> Environment:
    return Environment(
        loader=PackageLoader("stages.report"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _yaml(values: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True, width=100).rstrip() if values else ""
