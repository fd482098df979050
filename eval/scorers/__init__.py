"""Scoring one answer: content, style, and what only a judge or a reward model can tell."""
