"""The browser and its stand-in for a server, for the tests of the page."""

from builders.browser import _context, _server, axe, browser, page, server  # noqa: F401
