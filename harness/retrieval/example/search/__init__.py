"""Hybrid search over chunks of text: by words (SQLite's full-text search) and by vectors."""
