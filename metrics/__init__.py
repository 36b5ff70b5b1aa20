"""Fetching, joining, judging and drawing the rows of both arms."""
