"""Placeholder, being written."""


class Meter:
    pass


class Provider:
    pass
