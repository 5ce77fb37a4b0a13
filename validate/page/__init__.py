"""The page of a build's results, report.html: one file that needs nothing else, see docs/report.md.

`page.py` puts it together of sections, one module each; `sources.py` reads what they show. Nothing here judges.
"""
