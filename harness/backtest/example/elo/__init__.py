"""Ratings of teams, and forecasts of their matches."""
