"""Debian's Chromium, driven as a person would, with what it complains of."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from typing import Any

from playwright.sync_api import Browser, Page, Response, expect, sync_playwright

EXECUTABLE = shutil.which("chromium")
REASON = "chromium is not installed (Debian: chromium)"
#: What Chromium says of every answer that is an error, and of a connection that breaks: the page's own words count.
_STATUS = re.compile(r"Failed to load resource: (the server responded with a status of (\d+)|net::ERR_\w+)")

expect.set_options(timeout=20_000)


@contextlib.contextmanager
def running() -> Iterator[Browser]:
    """Run a browser without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=EXECUTABLE, args=["--no-sandbox", "--headless=new"])
        yield browser
        browser.close()


class Visit:
    """A page of the gateway at `url` in a context of its own.

    `complaints` are errors of the console, Content-Security-Policy's included, and of scripts, but for statuses in
    `expected`; `elsewhere` are requests to any other origin.
    """

    def __init__(self, browser: Browser, url: str, **context: Any) -> None:
        self.url = url
        self.expected: set[str] = set()
        self.complaints: list[str] = []
        self.elsewhere: list[str] = []
        self.context = browser.new_context(**{"viewport": {"width": 1440, "height": 1000}, **context})
        self.page: Page = self.context.new_page()
        self.page.on("console", lambda said: self._complain(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda asked: asked.url.startswith((url, "data:")) or self.elsewhere.append(asked.url))
        self.answer: Response | None = self.page.goto(f"{url}/docs")
        expect(self.page.get_by_label("The body as JSON")).to_have_value(re.compile("messages"))

    def use(self, key: str) -> None:
        """Enter a key and wait until something is known of it."""
        self.page.get_by_label("Bearer key or token").fill(key)
        self.page.get_by_role("button", name="Use key").click()
        expect(self.page.locator("#key-state")).not_to_have_text(re.compile("^$|^Looking"))

    def ask(self, text: str, model: str = "echo") -> None:
        """Fill in model and text, and send."""
        self.page.get_by_label("model", exact=False).first.fill(model)
        self.page.get_by_label("Text of turn 1").fill(text)
        self.page.get_by_role("button", name="Send").click()

    @property
    def state(self) -> Any:
        """The line that tells how the answer goes."""
        return self.page.locator("#answer-state")

    @property
    def said(self) -> Any:
        """The answer's text."""
        return self.page.locator(".answer-text")

    @property
    def failure(self) -> Any:
        """The error that is shown."""
        return self.page.locator(".failure")

    def body(self) -> Any:
        """Return the JSON view's text."""
        return self.page.get_by_label("The body as JSON").input_value()

    def close(self) -> None:
        """Close the page; fail where it complained of anything or asked anybody else."""
        self.context.close()
        assert (self.complaints, self.elsewhere) == ([], [])

    def _complain(self, text: str) -> None:
        found = _STATUS.search(text)
        if not (found and (found[2] or "broken") in self.expected):
            self.complaints.append(text)
