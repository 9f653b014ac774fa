"""Hubbub: people and AI characters talk together in shared rooms."""

__version__ = "0.1.0"
