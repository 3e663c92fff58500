"""How time and memory grow with the length of a clip: SSAMBA beside SSAST and other implementations.

Read contestants.py (who does the work), series.py (what is predicted instead of run), measure.py (one point, in a
process of its own) and page.py (docs/length_scaling.md and its picture).
"""
