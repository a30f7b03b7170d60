"""Recommend books to readers."""
