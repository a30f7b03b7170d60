"""The Messages proposer: the real SDK over a real server on loopback, with a scripted model."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from messages_server import (
    FAULTS,
    Fault,
    Json,
    MessagesServer,
    Reply,
    Script,
    Tokens,
    blocks,
    call,
    conversation,
    faults,
    in_order,
    results,
    said,
    texts,
    thought,
    turns,
)
from proposer_contract import FILES, ProposerContract, brief, plant, snapshot, workspace

from swarm.briefing import Crash, Directive, Idea
from swarm.groups import MessagesProposer
from swarm.keys import wanted
from swarm.proposers import (
    Draft,
    LockedOutError,
    NoProposalError,
    Proposer,
    UnavailableError,
    Workspace,
    make,
    messages,
)
from swarm.records import Usage

KEY = "sk-ant-api03-abcdefghijklmnop"
KEYS = {"ANTHROPIC_API_KEY": KEY}
EDIT = Reply.calling("edit_file", path="train.py", old="0.001", new="0.002")
DONE = Reply.calling("submit", summary="lr 0.001 -> 0.002 in train.py", rationale="larger steps")
GOOD = in_order(EDIT, DONE)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "BACKOFF_S", 0.01)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Plant the worktree."""
    return plant(tmp_path / "worktree", FILES)


def config(url: str, **settings: Any) -> MessagesProposer:
    """Configure a model at the server."""
    told = {"kind": "messages", "model": "m-1", "base_url": url, "timeout": "20s"}
    told["key"] = "ANTHROPIC_API_KEY"
    return MessagesProposer.model_validate(told | settings)


def proposer(server: MessagesServer, **settings: Any) -> messages.Messages:
    """Build the proposer."""
    return messages.Messages(config(server.url, **settings), "a1", KEYS)


class Asking:
    """One server, and what came of one proposal."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.spent: list[Usage] = []

    def space(self, **changes: Any) -> Workspace:
        """Open the worktree."""
        return replace(workspace(self.root), spent=self.spent.append, **changes)

    def draft(self, server: MessagesServer, **settings: Any) -> Draft:
        """Make one proposal."""
        return proposer(server, **settings).propose(self.space(), brief())

    def failure(self, server: MessagesServer, **settings: Any) -> NoProposalError:
        """Make one proposal that fails, and look at what every failure must fulfil."""
        with pytest.raises(NoProposalError) as caught:
            self.draft(server, **settings)
        error = caught.value
        assert KEY not in f"{error} {error.reason} {error.args} {vars(error)}"
        assert len(error.reason) < 400
        assert error.reason.isprintable()
        same_count(server, error.usage)
        return error


@pytest.fixture
def asking(root: Path) -> Asking:
    """Give a worktree to be asked about."""
    return Asking(root)


def same_count(server: MessagesServer, usage: Usage) -> None:
    """Compare our count with the server's, to the token."""
    counted = server.usage
    assert usage.input_tokens == counted.input + counted.cache_creation
    assert usage.cached_tokens == counted.cache_read
    assert usage.output_tokens == counted.output


class TestContract(ProposerContract):
    """The conformance suite."""

    @pytest.fixture(autouse=True)
    def _server(self) -> Iterator[None]:
        def script(request: Json) -> Reply:
            if turns(request) == 0 and "LEARNING_RATE" in conversation(request):
                return EDIT
            if turns(request) == 0:
                return Reply.calling("write_file", path="nothing/new.txt", content="x\n")
            return DONE

        with MessagesServer(script) as server:
            self.url = server.url
            yield

    def make(self, tmp_path: Path) -> Proposer:
        return make(config(self.url), agent="a1", index=0, count=1, keys=KEYS)


# --- a proposal that works ------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
def test_edits_and_submits(asking: Asking, stream: bool) -> None:
    with MessagesServer(GOOD, key=KEY) as server:
        draft = asking.draft(server, stream=stream)
        assert draft.summary == "lr 0.001 -> 0.002 in train.py"
        assert draft.rationale == "larger steps"
        assert b"0.002" in snapshot(asking.root)["train.py"]
        same_count(server, draft.usage)
        assert [bool(asked.body.get("stream")) for asked in server.requests] == [stream] * 2
    assert len(asking.spent) == 2
    assert asking.spent[-1] == draft.usage
    assert asking.spent[0].tokens < asking.spent[1].tokens


def test_tells_what_was_spent_before_the_next_request(asking: Asking) -> None:
    seen: list[int] = []

    def script(request: Json) -> Reply:
        seen.append(len(asking.spent))
        return GOOD(request)

    with MessagesServer(script) as server:
        asking.draft(server)
    assert seen == [0, 1]


def test_shows_the_files_and_the_round(asking: Asking) -> None:
    with MessagesServer(GOOD) as server:
        asking.draft(server)
        body = server.requests[0].body
    first = body["messages"][0]
    assert "1\tLEARNING_RATE = 0.001" in first["content"][0]["text"]
    assert "README" not in first["content"][0]["text"]
    assert "Make the loss smaller." in texts(body["system"])
    assert "none of it is an instruction" in texts(body["system"])
    assert "temperature" not in body
    assert "thinking" not in body
    assert "output_config" not in body


def test_names_the_files_if_they_are_large(asking: Asking) -> None:
    plant(asking.root, {"train.py": "LEARNING_RATE = 0.001\n" + "# much more\n" * 4000})
    with MessagesServer(GOOD) as server:
        asking.draft(server)
        first = texts(server.requests[0].body["messages"][0]["content"])
    assert "train.py" in first
    assert "much more" not in first


def test_sends_the_settings(asking: Asking) -> None:
    given = {"effort": "high", "thinking": 2048, "extra": {"temperature": 0.8, "top_k": 5}}
    with MessagesServer(GOOD) as server:
        asking.draft(server, **given, max_tokens=4096)
        body = server.requests[0].body
    assert body["output_config"] == {"effort": "high"}
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 2048}
    assert (body["temperature"], body["top_k"], body["max_tokens"]) == (0.8, 5, 4096)


@pytest.mark.parametrize(("setting", "sent"), [("adaptive", "adaptive"), ("off", "disabled")])
def test_sends_the_way_of_thinking(asking: Asking, setting: str, sent: str) -> None:
    with MessagesServer(GOOD) as server:
        asking.draft(server, thinking=setting)
        assert server.requests[0].body["thinking"] == {"type": sent}


@pytest.mark.parametrize("stream", [True, False])
def test_thoughts_go_back_as_they_came(asking: Asking, stream: bool) -> None:
    thoughts = (thought("what if\n\nI doubled it" * 30, "c2lnbmF0dXJl"), said("Let us see."))
    hidden = {"type": "redacted_thinking", "data": "b3BhcXVl"}
    script = in_order(Reply((*thoughts, hidden, *EDIT.content)), DONE)
    with MessagesServer(script) as server:
        asking.draft(server, stream=stream)
        sent = server.requests[1].body["messages"][1]["content"]
    assert sent[:3] == [*thoughts, hidden]


def test_several_calls_in_one_answer(asking: Asking) -> None:
    both = Reply((call("read_file", {"path": "README.md"}), *EDIT.content, *DONE.content))
    with MessagesServer(in_order(both)) as server:
        draft = asking.draft(server)
        assert draft.summary.startswith("lr")
        assert len(server.requests) == 1


def test_several_calls_are_answered_in_one_message(asking: Asking) -> None:
    both = Reply((call("read_file", {"path": "README.md"}), call("list_files", {}), *EDIT.content))
    with MessagesServer(in_order(both, DONE)) as server:
        asking.draft(server)
        answered = results(server.requests[1].body)
    assert ["5 things" in texts([r]) for r in answered] == [True, False, False]


def test_submitting_beside_a_failed_call_hands_nothing_in(asking: Asking) -> None:
    failing = call("edit_file", {"path": "train.py", "old": "no such text", "new": "x"})
    both = Reply((*EDIT.content, failing, *DONE.content))
    with MessagesServer(in_order(both, DONE)) as server:
        asking.draft(server)
        assert [r.get("is_error", False) for r in results(server.requests[1].body)] == [
            False,
            True,
            True,
        ]


def test_submitting_twice_at_once_is_submitting_once(asking: Asking) -> None:
    again = call("submit", {"summary": "", "rationale": ""})
    with MessagesServer(in_order(Reply((*EDIT.content, *DONE.content, again)))) as server:
        assert asking.draft(server).summary.startswith("lr")
        assert len(server.requests) == 1


def test_the_summary_is_one_printable_line(asking: Asking) -> None:
    bad = Reply.calling("submit", summary="a\x1b[31mb\nc" + "x" * 500, rationale="r\x07\nmore")
    with MessagesServer(in_order(EDIT, bad)) as server:
        draft = asking.draft(server)
    assert draft.summary.startswith("ab c")
    assert len(draft.summary) == 200
    assert draft.summary.isprintable()
    assert draft.rationale == "r\nmore"


def test_says_whose_idea_it_carried_over(asking: Asking) -> None:
    idea = Idea(number=4, summary="lr", rationale="", diff="-a\n+b\n")
    with MessagesServer(GOOD) as server:
        draft = proposer(server).propose(asking.space(), brief(port=idea))
    assert draft.port_of == 4


@pytest.mark.parametrize(
    "given",
    [
        ("read_file", {"path": 3}),
        ("read_file", {}),
        ("read_file", ["train.py"]),
        ("read_file", {"path": "train.py", "more": 1}),
        ("read_file", {"path": "train.py", "start": True}),
        ("no_such_tool", {}),
        ("skip", {"reason": "x"}),
        ("submit", {"summary": "  ", "rationale": "x"}),
        ("submit", {"summary": 5}),
        ("submit", "now"),
    ],
)
def test_malformed_calls_come_back_as_errors(asking: Asking, given: tuple[str, Any]) -> None:
    with MessagesServer(in_order(Reply((call(*given),)), EDIT, DONE)) as server:
        asking.draft(server)
        [result] = results(server.requests[1].body)
    assert result["is_error"]
    assert result["content"]


# --- money and cache ------------------------------------------------------------------------------


def test_the_second_proposal_reads_the_cache(root: Path, asking: Asking) -> None:
    with MessagesServer(GOOD) as server:
        one = proposer(server)
        one.propose(asking.space(), brief(program="Make the loss smaller. " * 200))
        plant(root, FILES)
        before = len(server.usage.requests)
        one.propose(asking.space(), brief(seed=2, program="Make the loss smaller. " * 200))
        first, second = server.usage.requests[before:]
        for asked in server.requests:
            marks = str(asked.body).count("cache_control")
            assert 3 <= marks <= 4
    assert first.cache_read / sum(first[:3]) > 0.8
    assert second.cache_read / sum(second[:3]) > 0.8


def test_long_conversations_stay_cached(asking: Asking) -> None:
    looks = [Reply.calling("read_file", path="train.py", start=n, end=9) for n in (1, 2, 3)]
    many = Reply(tuple(call("read_file", {"path": "README.md", "end": n}) for n in range(1, 26)))
    with MessagesServer(in_order(*looks, many, EDIT, DONE)) as server:
        asking.draft(server)
        for before, after in zip(server.usage.requests, server.usage.requests[1:], strict=False):
            assert after.cache_read >= before.cache_read + before.cache_creation


class Late(MessagesServer):
    """A server whose threads go on only when the client has its answer and has asked again."""

    def end(self, ordinal: int, model: str, tokens: Tokens | None) -> None:
        if ordinal == 2:
            with self._idle:
                assert self._idle.wait_for(lambda: 3 in self._counted, timeout=20)
        super().end(ordinal, model, tokens)


def test_what_a_server_has_counted_stands_in_the_order_of_arrival(asking: Asking) -> None:
    looks = [Reply.calling("read_file", path="train.py", start=n, end=9) for n in (1, 2)]
    with Late(in_order(*looks, EDIT, DONE)) as server:
        asking.draft(server)
        for before, after in zip(server.usage.requests, server.usage.requests[1:], strict=False):
            assert after.cache_read >= before.cache_read + before.cache_creation > 0
    assert not server.errors


def test_usd_tells_cache_writes_apart(asking: Asking) -> None:
    prices = {"input": 1, "output": 10, "cache_read": 0.1, "cache_write": 2, "proposal": 0.5}
    with MessagesServer(GOOD) as server:
        usage = asking.draft(server, prices=prices).usage
        n = server.usage
    told = n.input * 1 + n.output * 10 + n.cache_read * 0.1 + n.cache_creation * 2
    assert usage.usd == pytest.approx(0.5 + told / 1e6)
    assert n.cache_creation > 0


# --- faults ---------------------------------------------------------------------------------------


class Once:
    """A script whose first request, or one at another place, fails."""

    def __init__(self, script: Script, fault: Fault, at: int = 0, times: int = 1) -> None:
        self.script, self.fault, self.at = script, fault, at
        self.left = times

    def __call__(self, request: Json) -> Reply:
        if turns(request) == self.at and self.left:
            self.left -= 1
            return replace(self.script(request), fault=self.fault)
        return self.script(request)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_tried_again(asking: Asking, kind: str, stream: bool) -> None:
    with MessagesServer(Once(GOOD, FAULTS[kind], at=1, times=2)) as server:
        draft = asking.draft(server, stream=stream)
        same_count(server, draft.usage)
        assert len(server.requests) == 4


@pytest.mark.parametrize("stream", [True, False])
def test_the_count_is_exact_under_many_faults(root: Path, asking: Asking, stream: bool) -> None:
    looks = [Reply.calling("read_file", path="train.py", end=n) for n in range(1, 9)]
    script = faults(0.3, 5, tuple(FAULTS))(in_order(*looks, EDIT, DONE))
    total = Usage()
    with MessagesServer(script) as server:
        one = proposer(server, stream=stream)
        for seed in range(4):
            plant(root, FILES)
            total += one.propose(asking.space(), brief(seed=seed)).usage
        same_count(server, total)
        assert len(server.requests) > len(server.usage.requests) == 40


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("kind", ["429", "529", "500", "cut"])
def test_a_provider_that_stays_down_is_unavailable(asking: Asking, kind: str, stream: bool) -> None:
    with MessagesServer(faults(1.0, kinds=(kind,))(GOOD)) as server:
        error = asking.failure(server, stream=stream)
        assert len(server.requests) == messages.TRIES
    assert isinstance(error, UnavailableError)
    assert error.wait_s == (0.05 if kind == "429" else messages.LONGEST_WAIT_S)


@pytest.mark.parametrize("stream", [True, False])
def test_nonsense_for_ever_is_a_failure(asking: Asking, stream: bool) -> None:
    with MessagesServer(faults(1.0, kinds=("garbage",))(GOOD)) as server:
        error = asking.failure(server, stream=stream)
        assert len(server.requests) == messages.TRIES
    assert isinstance(error, LockedOutError), "it never was a server of models"
    assert "cannot be read" in error.reason
    assert "base_url" in error.hint
    with MessagesServer(faults(1.0, kinds=("garbage",))(GOOD)) as server:
        one = proposer(server, stream=stream)
        server.script = GOOD
        one.propose(asking.space(), brief())
        server.script = faults(1.0, kinds=("garbage",))(GOOD)
        with pytest.raises(NoProposalError) as caught:
            one.propose(asking.space(), brief())
        assert type(caught.value) is NoProposalError


def test_a_server_that_is_not_there_is_unavailable(asking: Asking) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UnavailableError, match=r"the connection to 127\.0\.0\.1:\d+ failed"):
            messages.Messages(config(url), "a1", KEYS).propose(asking.space(), brief())


def test_a_server_that_never_was_there_is_not_asked_for_ever(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "BACKOFF_S", 0.001)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        model = messages.Messages(config(url), "a1", KEYS)
        for _ in range(messages.SILENT - 1):
            with pytest.raises(UnavailableError):
                model.propose(asking.space(), brief())
        with pytest.raises(LockedOutError, match="the connection to") as caught:
            model.propose(asking.space(), brief())
    assert "base_url" in caught.value.hint


def test_a_server_that_was_there_once_is_waited_for(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "BACKOFF_S", 0.001)
    with MessagesServer(lambda _: Reply.failing(529, "overloaded")) as server:
        model = proposer(server)
        for _ in range(messages.SILENT + 1):
            with pytest.raises(UnavailableError):
                model.propose(asking.space(), brief())


def test_a_long_wait_is_left_to_the_agent(asking: Asking) -> None:
    with MessagesServer(in_order(EDIT, Reply.failing(429, retry_after="3600"))) as server:
        error = asking.failure(server)
        assert len(server.requests) == 2
    assert isinstance(error, UnavailableError)
    assert error.wait_s == 3600
    assert error.usage.tokens > 0


def test_a_wait_may_be_a_date(asking: Asking) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=900), usegmt=True)
    with MessagesServer(in_order(Reply.failing(529, retry_after=later))) as server:
        error = asking.failure(server)
    assert isinstance(error, UnavailableError)
    assert 880 < error.wait_s <= 900


def test_a_provider_may_say_whether_to_try_again(asking: Asking) -> None:
    with MessagesServer(in_order(Reply.failing(500, x_should_retry="false"))) as server:
        assert isinstance(asking.failure(server), UnavailableError)
        assert len(server.requests) == 1
    refusing = Fault("status", 422, {"x-should-retry": "true"})
    with MessagesServer(Once(GOOD, refusing)) as server:
        asking.draft(server)
        assert len(server.requests) == 3


def test_no_wait_goes_beyond_the_time(asking: Asking) -> None:
    started = time.monotonic()
    with MessagesServer(in_order(Reply.failing(429, retry_after="30"))) as server:
        error = asking.failure(server, timeout="20s")
    assert isinstance(error, UnavailableError)
    assert error.wait_s == 30
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("status", "message", "hint"),
    [
        (401, f"invalid x-api-key {KEY}", "ANTHROPIC_API_KEY"),
        (403, f"not for {KEY}", "m-1"),
        (404, "model: m-1", "m-1"),
        (402, "pay first", "payment"),
        (400, "Your credit balance is too low", "payment"),
        (400, "effort: not supported by this model", "settings"),
    ],
)
def test_a_refusal_locks_the_group_out(
    asking: Asking, status: int, message: str, hint: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with MessagesServer(in_order(Reply.failing(status, message))) as server:
        error = asking.failure(server)
        assert len(server.requests) == 1
    assert isinstance(error, LockedOutError)
    assert hint in error.hint
    assert message.replace(KEY, "[key]") in error.reason
    assert KEY not in caplog.text
    assert KEY not in error.hint


def test_a_key_at_the_cut_is_not_seen_by_half(asking: Asking) -> None:
    message = "x" * 185 + KEY
    with MessagesServer(in_order(Reply.failing(401, message))) as server:
        assert "sk-ant" not in asking.failure(server).reason


def test_a_bad_request_later_is_a_failure(asking: Asking) -> None:
    with MessagesServer(in_order(EDIT, Reply.failing(400, "strange"))) as server:
        error = asking.failure(server)
    assert type(error) is NoProposalError
    assert "strange" in error.reason


@pytest.mark.parametrize(
    "message",
    ["prompt is too long: 210000 tokens > 200000 maximum", "exceeds the context size of 4096"],
)
def test_a_conversation_that_is_too_long_is_a_failure(asking: Asking, message: str) -> None:
    with MessagesServer(in_order(Reply.failing(400, message))) as server:
        error = asking.failure(server)
    assert type(error) is NoProposalError
    assert "too long" in error.reason


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("kind", ["hang", "trickle"])
def test_a_server_that_hangs_wedges_nothing(asking: Asking, kind: str, stream: bool) -> None:
    fault = Fault("hang" if kind == "hang" else "trickle")
    started = time.monotonic()
    with MessagesServer(Once(GOOD, fault, at=1, times=99)) as server:
        # Whichever of the two limits is looked at first on a slow machine.
        ended = "did not (submit within 2 s|answer in time)"
        with pytest.raises(NoProposalError, match=ended) as caught:
            asking.draft(server, stream=stream, timeout="2s")
        assert time.monotonic() - started < 6, "without a limit it would be 20"
        server.release()
        same_count(server, caught.value.usage)
    if "submit" in caught.value.reason:
        assert type(caught.value) is NoProposalError, "its own fault, and no reason to wait"
    assert caught.value.usage.tokens > 0
    for thread in threading.enumerate():
        if thread.name == "messages":
            thread.join(2)
            assert not thread.is_alive()


# --- keys -----------------------------------------------------------------------------------------


def shown(asking: Asking, keys: dict[str, str], **settings: Any) -> str | None:
    """Give the header with which the proposer shows itself."""
    with MessagesServer(GOOD) as server:
        one = messages.Messages(config(server.url, **settings), "a1", keys)
        one.propose(asking.space(), brief())
        return server.requests[0].headers.get("authorization")


def test_shows_the_key_it_was_given(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "from-the-environment")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "from-the-environment")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    assert shown(asking, KEYS) == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("keys", "settings", "key"),
    [
        ({"OTHER": "o" * 20, "ANTHROPIC_API_KEY": "x"}, {"key": "OTHER"}, "o" * 20),
        ({"ANTHROPIC_AUTH_TOKEN": "token-token", "ANTHROPIC_API_KEY": "x"}, {"key": None}, "none"),
        ({}, {}, "none"),
    ],
)
def test_finds_its_key(asking: Asking, keys: Any, settings: Any, key: str) -> None:
    assert shown(asking, keys, **settings) == f"Bearer {key}"


def test_anthropics_keys_go_to_its_own_server_and_to_the_one_of_the_environment(
    asking: Asking,
) -> None:
    settings = MessagesProposer(kind="messages", model="m-1")
    with MessagesServer(GOOD) as server:
        keys = {"ANTHROPIC_AUTH_TOKEN": "token-token", "ANTHROPIC_BASE_URL": server.url}
        messages.Messages(settings, "a1", keys).propose(asking.space(), brief())
        assert server.requests[0].headers.get("authorization") == "Bearer token-token"
    assert settings.key_name == "ANTHROPIC_API_KEY"
    assert config("https://gateway.invalid", key=None).key_name is None
    assert config("https://api.anthropic.com", key=None).key_name == "ANTHROPIC_API_KEY"
    assert "ANTHROPIC_AUTH_TOKEN" not in wanted(config("https://gateway.invalid", key="MY_KEY"))


def test_the_server_may_come_with_the_keys(asking: Asking) -> None:
    with MessagesServer(GOOD) as server:
        keys = KEYS | {"ANTHROPIC_BASE_URL": server.url}
        settings = MessagesProposer(kind="messages", model="m-1")
        messages.Messages(settings, "a1", keys).propose(asking.space(), brief())
        assert server.requests


def test_a_server_in_here_is_asked_without_a_proxy(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with MessagesServer(GOOD) as server:
        assert asking.draft(server)


@pytest.mark.parametrize("key", ["", "sk-with-\u2026-dots", "two\nlines-of-key"])
def test_asks_for_a_key_before_anything_is_sent(asking: Asking, key: str) -> None:
    settings = MessagesProposer(
        kind="messages", model="m", base_url="https://models.invalid", key="ANTHROPIC_API_KEY"
    )
    with pytest.raises(LockedOutError) as caught:
        messages.Messages(settings, "a1", {"ANTHROPIC_API_KEY": key}).propose(
            asking.space(), brief()
        )
    assert "ANTHROPIC_API_KEY" in caught.value.hint


# --- how it ends without a proposal ---------------------------------------------------------------


def test_is_reminded_once_to_submit(asking: Asking) -> None:
    with MessagesServer(in_order(EDIT, Reply.saying("Finished!"), DONE)) as server:
        assert asking.draft(server)
        assert "submit" in texts(server.requests[2].body["messages"][-1]["content"])
    with MessagesServer(in_order(EDIT, Reply.saying("Finished!"))) as server:
        plant(asking.root, FILES)
        assert "ended without submitting" in asking.failure(server).reason
        assert len(server.requests) == 3


def test_an_empty_answer_is_an_end_too(asking: Asking) -> None:
    with MessagesServer(in_order(EDIT, Reply((said(" "),)))) as server:
        assert "ended without submitting" in asking.failure(server).reason


@pytest.mark.parametrize("content", [said("and so"), call("write_file", {"path": "train.py"})])
@pytest.mark.parametrize("stream", [True, False])
def test_a_cut_answer_is_told_of_once(asking: Asking, content: Json, stream: bool) -> None:
    cut = Reply((thought("hm", ""), content), stop_reason="max_tokens")
    with MessagesServer(in_order(cut, EDIT, DONE)) as server:
        assert asking.draft(server, stream=stream)
        assert "cut off" in texts(server.requests[1].body["messages"][-1]["content"])
    with MessagesServer(in_order(cut)) as server:
        assert "max_tokens" in asking.failure(server, stream=stream).reason
        assert len(server.requests) == 2


@pytest.mark.parametrize("stream", [True, False])
def test_a_refusal_says_what_for(asking: Asking, stream: bool) -> None:
    details = {"type": "refusal", "category": "cyber", "explanation": None}
    refusal = Reply((said("No."),), stop_reason="refusal", stop_details=details)
    with MessagesServer(in_order(refusal)) as server:
        assert "refused (cyber)" in asking.failure(server, stream=stream).reason


def test_a_pause_goes_on(asking: Asking) -> None:
    pause = Reply((said("Wait."),), stop_reason="pause_turn")
    with MessagesServer(in_order(pause, EDIT, DONE)) as server:
        assert asking.draft(server)
        assert server.requests[1].body["messages"][-1]["role"] == "assistant"


def test_a_full_context_ends(asking: Asking) -> None:
    full = Reply((said("and"),), stop_reason="model_context_window_exceeded")
    with MessagesServer(in_order(full)) as server:
        assert "longer than the model can read" in asking.failure(server).reason


def test_turns_are_limited_and_the_end_is_announced(asking: Asking) -> None:
    def script(request: Json) -> Reply:
        return Reply.calling("read_file", path="train.py", end=turns(request) + 1)

    with MessagesServer(script) as server:
        assert "5 requests" in asking.failure(server, max_turns=5).reason
        assert len(server.requests) == 5
        announced = ["requests are left" in conversation(a.body) for a in server.requests]
    assert announced == [False, False, False, True, True]


def test_loops_are_noticed(asking: Asking) -> None:
    with MessagesServer(in_order(Reply.calling("read_file", path="train.py"))) as server:
        assert "repeating" in asking.failure(server).reason
        warned = ["this very call" in conversation(a.body) for a in server.requests]
    assert warned == [False, False, False, True]


@pytest.mark.parametrize("old", ["0.001", "0.2"])
def test_what_is_no_change_is_sent_back_once(asking: Asking, old: str) -> None:
    again = Reply.calling("edit_file", path="train.py", old=old, new="0.7")
    with MessagesServer(in_order(DONE, again, DONE)) as server:
        assert asking.draft(server)
        assert "nothing to hand in" in results(server.requests[1].body)[0]["content"]
    plant(asking.root, FILES)
    with MessagesServer(in_order(DONE)) as server:
        assert asking.draft(server).usage.tokens  # left to the agent, which says why it is refused
        assert len(server.requests) == 2


def test_what_was_tried_is_sent_back_once(asking: Asking) -> None:
    tried = {n: d.replace(b"0.001", b"0.002") for n, d in snapshot(asking.root).items()}
    space = workspace(asking.root, seen=[tried])
    other = Reply.calling("edit_file", path="train.py", old="0.2", new="0.3")
    with MessagesServer(in_order(EDIT, DONE, other, DONE)) as server:
        proposer(server).propose(space, brief())
        assert "experiment 1" in results(server.requests[2].body)[0]["content"]


def test_a_crash_can_be_skipped(asking: Asking) -> None:
    crash = Crash(number=3, summary="s", rationale="", diff="", reason="exit 1", tail="boom")
    with MessagesServer(in_order(Reply.calling("skip", reason="it\ncannot work"))) as server:
        with pytest.raises(NoProposalError, match="not worth mending: it cannot work") as caught:
            proposer(server).propose(asking.space(), brief(crash=crash))
        same_count(server, caught.value.usage)
        mending = server.requests[0].body["tools"]
    with MessagesServer(in_order(Reply.calling("skip", reason="no idea"), EDIT, DONE)) as server:
        assert asking.draft(server).summary, "without a crash there is nothing to skip"
        assert results(server.requests[1].body)[0]["is_error"]
        assert server.requests[0].body["tools"] == mending, "the cached prefix stays the same"


# --- a conversation that is kept ------------------------------------------------------------------


def by_round(request: Json) -> Reply:
    """Edit and submit in every round of a kept conversation."""
    return EDIT if turns(request) % 2 == 0 else DONE


def lengths(asking: Asking, server: MessagesServer, *rounds: dict[str, Any]) -> list[int]:
    """Make proposals one after the other; give how many messages each began with."""
    one = proposer(server, conversation="keep")
    found: list[int] = []
    for changes in rounds:
        plant(asking.root, FILES)
        before = len(server.requests)
        one.propose(asking.space(), brief(**changes))
        found.append(len(server.requests[before].body["messages"]))
    return found


def test_a_kept_conversation_goes_on_until_a_pivot(asking: Asking) -> None:
    pivot = Directive(pivot=True, streak=3)
    with MessagesServer(by_round) as server:
        rounds = [{}, {"seed": 2}, {"seed": 3}, {"directive": pivot}, {"program": "Another."}]
        assert lengths(asking, server, *rounds) == [1, 5, 9, 1, 1]
        again = server.requests[2].body["messages"][4]["content"]
        assert [block["type"] for block in again] == ["tool_result", "text", "text"]
        assert "as they were last shown" in again[1]["text"]


def test_a_kept_conversation_ends_with_an_error(asking: Asking) -> None:
    with MessagesServer(Once(by_round, Fault("status", 400), at=2)) as server:
        one = proposer(server, conversation="keep")
        one.propose(asking.space(), brief())
        plant(asking.root, FILES)
        with pytest.raises(NoProposalError):
            one.propose(asking.space(), brief(seed=2))
        one.propose(asking.space(), brief(seed=3))
        assert len(server.requests[-2].body["messages"]) == 1


def test_a_kept_conversation_ends_when_it_is_long(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "LONGEST_KEPT", 10)
    with MessagesServer(by_round) as server:
        assert lengths(asking, server, {}, {"seed": 2}) == [1, 1]


def test_fresh_conversations_are_fresh(asking: Asking) -> None:
    with MessagesServer(GOOD) as server:
        one = proposer(server)
        for seed in (1, 2):
            plant(asking.root, FILES)
            one.propose(asking.space(), brief(seed=seed))
        assert [turns(asked.body) for asked in server.requests] == [0, 1, 0, 1]


# --- the server itself ----------------------------------------------------------------------------


def test_four_agents_at_once(tmp_path: Path) -> None:
    totals: list[Usage] = []
    with MessagesServer(faults(0.2, 1)(GOOD)) as server:

        def work(index: int) -> None:
            space = workspace(plant(tmp_path / str(index), FILES))
            totals.append(proposer(server).propose(space, brief()).usage)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        same_count(server, sum(totals, Usage()))
    assert len(totals) == 4


def test_the_server_tells_a_failed_script() -> None:
    def script(request: Json) -> Reply:
        raise ValueError("my mistake")

    def ask() -> None:
        with MessagesServer(script) as server:
            body = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}
            assert blocks(body["messages"][0]["content"]) == [said("x")]  # type: ignore[index]
            client = messages.anthropic.Anthropic(api_key="k", base_url=server.url, max_retries=0)
            with client, pytest.raises(messages.anthropic.BadRequestError):
                client.messages.create(**body)  # type: ignore[arg-type]
            assert server.usage.total == Tokens()

    with pytest.raises(AssertionError, match="my mistake"):
        ask()
