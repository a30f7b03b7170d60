"""Suites for skills: a real server for the model, real files and commands, every way to fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from messages_server import (
    Fault,
    Json,
    MessagesServer,
    Reply,
    conversation,
    said,
    tool_names,
    turns,
)

from skill_suite import SUITE, Done, editor, plant, request_of, skill, tried, using


def test_a_skill_is_measured(weird_path: Path) -> None:
    with MessagesServer(editor) as server:
        done = skill("measure", tried(weird_path, SUITE, server.url))
        assert (done.status, done.stderr) == (0, "")
        assert done.passed == {"greet": True, "answer": True}
        assert done.metrics["tokens"] == server.usage.tokens
    assert done.metrics["tool_calls"] == 3
