"""Experiments of the theory: what arXiv:2307.15196 proves, measured.

Each module is one experiment: a frozen configuration, a function that runs it, and a frozen result that says
everything as plain numbers (`to_json`). They draw nothing: their pages are in `lightball.report.theory`.
"""
