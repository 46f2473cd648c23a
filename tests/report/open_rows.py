"""Rows of a page that are drawn when they are opened."""

from typing import Any

from playwright.sync_api import expect


def drawn(page: Any) -> None:
    """Wait until all open rows have their content: `toggle` comes some time after the click."""
    expect(page.locator("details[open]:not(:has(> :nth-child(2)))")).to_have_count(0)
