"""Figures without meters: planned, described or published runs."""
