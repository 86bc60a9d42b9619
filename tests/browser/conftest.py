"""A real browser, for the pages that we write: Debian's Chromium, driven by Playwright. Nothing reaches the network."""

import os
import shutil

import pytest

CHROMIUM = shutil.which("chromium")
ARGUMENTS = ["no-sandbox", "disable-gpu", "disable-background-networking", "disable-component-update"]
ARGUMENTS += ["disable-sync", "no-first-run"]
WIDTHS = {"desktop": (1280, 800), "phone": (390, 844), "across": (800, 360), "enlarged": (640, 400)}


@pytest.fixture(scope="session")
def chromium():
    """The running browser. Without one the tests are skipped, but not where CI says that it installed one."""
    if not os.environ.get("CI"):
        pytest.importorskip("playwright")
        if CHROMIUM is None:
            pytest.skip("Chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[f"--{name}" for name in ARGUMENTS])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium):
    """Opens a file in a page of its own; at the end, it must have asked for nothing else, and said nothing."""
    opened = []

    def open_file(path, size="desktop", **options):
        width, height = WIDTHS[size]
        context = chromium.new_context(viewport={"width": width, "height": height}, **options)
        page = context.new_page()
        page.clock.install()
        heard = []
        page.on("console", lambda message: heard.append(("console", message.text)))
        page.on("pageerror", lambda error: heard.append(("error", str(error))))
        page.on("dialog", lambda dialog: heard.append(("dialog", dialog.message)))
        page.on("request", lambda request: heard.append(("request", request.url)))
        page.goto(path.as_uri())
        opened.append((context, heard, path))
        return page

    yield open_file
    for context, heard, path in opened:
        context.close()
        assert heard == [("request", path.as_uri())]


def fits(page):
    """Whether the page needs no scrolling to the side."""
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def eventually(page, holds):
    """Whether something holds within two seconds: a browser scrolls, and tells of it, in a frame to come."""
    for _ in range(100):
        if holds():
            return True
        page.wait_for_timeout(20)
    return False


def violations(page):
    """What axe-core finds against the guidelines for accessible pages (WCAG), as (rule, the elements)."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [(rule["id"], [node["target"] for node in rule["nodes"]]) for rule in found]
