"""The report: what a run, or several, came to, as one page to look at and to send on.

`record` is what a run leaves to make it from, `charts` and `several` lay it out, `page` fills the
templates.
"""
