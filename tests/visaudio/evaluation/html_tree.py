"""A strict reader of HTML pages for tests: every element is closed where it should be."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "input", "br", "img", "link", "hr", "source"}


@dataclass
class Element:
    name: str
    attributes: dict[str, str | None]
    children: list = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def walk(self):
        yield self
        for child in self.children:
            if not isinstance(child, str):
                yield from child.walk()

    def all(self, name=None, **attributes):
        """Elements of that name whose attributes (class_ -> class) have these values."""
        wanted = {key.rstrip("_"): value for key, value in attributes.items()}
        return [
            e
            for e in self.walk()
            if (name is None or e.name == name)
            and all(e.attributes.get(key) == value for key, value in wanted.items())
        ]

    def one(self, name=None, **attributes):
        (found,) = self.all(name, **attributes)
        return found


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.stack = [Element("", {})]

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"an attribute twice in <{tag}>: {names}"
        element = Element(tag, dict(attrs))
        self.stack[-1].children.append(element)
        if tag not in VOID:
            self.stack.append(element)

    def handle_startendtag(self, tag, attrs):
        assert any(e.name == "svg" for e in self.stack), f"<{tag}/> outside of SVG closes nothing"
        self.stack[-1].children.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag):
        element = self.stack.pop()
        assert element.name == tag, f"</{tag}> where <{element.name}> is open"

    def handle_data(self, data):
        self.stack[-1].children.append(data)


def read_page(text: str) -> Element:
    """AssertionError where the page is not well-formed, has an id twice, or a link to an id it lacks."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert len(reader.stack) == 1, f"not closed: {[e.name for e in reader.stack[1:]]}"
    root = reader.stack[0]
    ids = [e.attributes["id"] for e in root.walk() if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    targets = [e.attributes.get("href") or "" for e in root.all("a")]
    assert {t[1:] for t in targets if t.startswith("#")} <= set(ids)
    return root
