"""The start page, for what it must not become."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from mlaas4hep.inference.web.page import ModelCard, security_headers, start_page

TEXT = st.text(st.characters(codec="utf-8"), max_size=20) | st.sampled_from(
    ["<script>", "</pre>", "'\"&<>", "</code><img src=x onerror=y>", "');--"]
)


class Tags(HTMLParser):
    """What a browser would see as markup."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}


def tags(page: str) -> Tags:
    parser = Tags()
    parser.feed(page)
    return parser


def card(description: str = "", names: list[str] | None = None) -> ModelCard:
    names = names or ["a"]
    return ModelCard("higgs", description, 1, True, names, names, names, {"keys": names, "values": [1.0]}, description)


@given(TEXT, st.lists(TEXT, min_size=1, max_size=20))
def test_no_text_of_a_model_becomes_markup(description: str, names: list[str]) -> None:
    plain, hostile = (
        tags(start_page([card("x", ["a"] * len(names))], "http://localhost", "")),
        tags(start_page([card(description, names)], "http://localhost", "")),
    )
    assert hostile.seen <= plain.seen | {"p", "strong"}
    assert hostile.attributes <= plain.attributes


@given(TEXT)
def test_the_example_is_one_argument_of_a_shell(name: str) -> None:
    page = start_page([card(names=[name])], "http://localhost", "")
    (example,) = re.findall(r"<pre>curl http://localhost/json -d '(.*?)'</pre>", page)
    assert "'" not in example


def test_the_policy_allows_exactly_the_style_of_the_page() -> None:
    page = start_page([], "http://localhost", "/base")
    (style,) = re.findall(r"<style>(.*)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = security_headers()["Content-Security-Policy"]
    assert f"style-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "style=" not in page
    assert "<script" not in page
    assert 'href="/base/models"' in page
