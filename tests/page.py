"""A page of HTML, parsed. Not a test itself."""

from html.parser import HTMLParser

VOID = {"meta", "link", "br", "input", "img"}


class Page(HTMLParser):
    """The elements of a page as (tag, attributes, text in it), in order; every one must be closed in its place."""

    def __init__(self, source):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append([tag, dict(attributes), ""])
        if tag not in VOID:
            self.open.append(self.elements[-1])

    def handle_startendtag(self, tag, attributes):
        self.elements.append([tag, dict(attributes), ""])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for element in self.open:
            element[2] += data

    def texts(self, tag):
        return [text for name, _, text in self.elements if name == tag]
