"""A language model behind the Messages API as a proposer.

Owns all that concerns the provider: the client, what a request holds, which failures are tried
again and for how long, what they mean for the agent, and the count of tokens. How the conversation
goes is `tool_loop`'s matter. The one importer of the SDK.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

import anthropic

from swarm.briefing import Briefing, render
from swarm.groups import MessagesProposer
from swarm.keys import blot, is_local, secrets
from swarm.prices import Price, price_of
from swarm.proposers import (
    Draft,
    LockedOutError,
    NoProposalError,
    UnavailableError,
    Workspace,
    file_tools,
    tool_loop,
)
from swarm.proposers.tool_loop import Answer, Conversation, Json, ToolLoop
from swarm.records import Usage

URL = "https://api.anthropic.com"
TRIES = 6
"""Most requests for one turn."""
BACKOFF_S = 1.0
"""The first wait; every further one is twice as long."""
LONGEST_WAIT_S = 60.0
"""Longer waits are not the proposer's but the agent's."""
SILENT = 15
"""Proposals for which a provider that has never answered may be away: about half an hour."""
CONNECT_S = 20.0
QUIET_S = 300.0
"""Longest silence within a stream."""
REASON = 600
"""Characters that are kept of why there is no proposal."""
LONGEST_KEPT = 100_000
"""Tokens of a request after which a conversation is not continued in the next proposal."""

_CACHED: Json = {"cache_control": {"type": "ephemeral"}}
_STATUS_OF = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""What an error that comes within a stream, after a 200, would have had as its status."""
_TOO_LONG = re.compile(
    r"too long|context.{0,20}(length|window|size|limit)|maximum context|too many tokens"
    r"|exceeds? .{0,40}(context|tokens)",
    re.IGNORECASE,
)
_UNPAID = re.compile(r"credit balance|billing|payment", re.IGNORECASE)
_PLACEHOLDER = "none"
"""A key for servers that want none; the SDK insists on one."""


class _Trouble(NamedTuple):
    """Why a request failed, if it may be tried again."""

    reason: str
    down: bool
    """The provider cannot be reached or is overloaded, as opposed to answering nonsense."""
    wait_s: float | None = None
    """What the provider asks for."""
    again: bool = True


class _MalformedError(Exception):
    """An answer that is none."""


class _LateError(Exception):
    """The proposal's time is over."""


class Messages:
    """One agent's model."""

    def __init__(self, config: MessagesProposer, agent: str, keys: Mapping[str, str]) -> None:
        """Build the proposer of an agent; nothing is sent before the first proposal."""
        self._config, self._agent, self._keys = config, agent, dict(keys)
        self._provider = _Provider(config, keys)
        self._kept: tuple[str, Conversation] | None = None
        """A conversation to be continued, and its system prompt."""

    def propose(self, workspace: Workspace, briefing: Briefing) -> Draft:
        """Have the model make one change.

        Raises:
            NoProposalError: it made none; the provider being down or refusing is told apart.
        """
        words = render(briefing)
        system = f"{words.prefix}\n\n{tool_loop.INSTRUCTIONS}"
        conversation = self._conversation(system, briefing)
        conversation.open(tool_loop.files_block(workspace), words.round)
        bill = _Bill(price_of(self._config, self._keys), workspace.spent)
        request = _Request(self._provider, system, tool_loop.tools(), bill, briefing.seed)
        secret = secrets(self._keys)
        try:
            loop = ToolLoop(workspace, briefing, conversation, request.ask)
            done = loop.run(self._config.max_turns)
        except NoProposalError as error:
            error.reason = tool_loop.one_line(blot(error.reason, secret), REASON)
            error.usage = bill.usage
            error.args = (error.reason,)
            raise
        if self._config.conversation == "keep" and bill.last_prompt <= LONGEST_KEPT:
            self._kept = system, conversation
        return Draft(
            tool_loop.one_line(blot(done.summary, secret)),
            file_tools.cut(blot(done.rationale, secret), tool_loop.RATIONALE),
            bill.usage,
            port_of=None if briefing.port is None else briefing.port.number,
        )

    def _conversation(self, system: str, briefing: Briefing) -> Conversation:
        """Go on with the last conversation if that is wanted and possible, else begin one.

        What is kept is given out once: it comes back only if the proposal succeeds.
        """
        kept, self._kept = self._kept, None
        if kept is None or kept[0] != system or briefing.directive.pivot:
            return Conversation()
        return kept[1]


class Reply(NamedTuple):
    """What a model has answered to one question."""

    text: str
    usage: Usage


def ask(config: MessagesProposer, keys: Mapping[str, str], system: str, question: str) -> Reply:
    """Ask the model of a proposer one question, outside of any run and without tools.

    Raises:
        NoProposalError: there is no answer, with why and with what was spent on it; the provider
            being down or refusing is told apart.
    """
    bill, conversation = _Bill(price_of(config, keys), lambda _: None), Conversation()
    conversation.open("", question)
    provider = _Provider(config, keys)
    try:
        answer = _Request(provider, system, [], bill, seed=0).ask(conversation)
    except NoProposalError as error:
        error.reason = tool_loop.one_line(provider.clean(error.reason), REASON)
        error.args, error.usage = (error.reason,), bill.usage
        raise
    finally:
        provider.drop()
    parts = [str(block["text"]) for block in answer.content if block["type"] == "text"]
    return Reply(blot("\n".join(parts), secrets(keys)), bill.usage)


class _Bill:
    """What one proposal costs."""

    def __init__(self, price: Price | None, spent: Callable[[Usage], None]) -> None:
        self._price, self._spent = price or Price(), spent
        self._flat = self._price.proposal
        self.usage = Usage()
        self.last_prompt = 0
        """Tokens that the last request was long."""

    def add(self, told: object) -> None:
        """Add what an answer says of itself.

        Raises:
            _MalformedError: it says nothing that can be counted.
        """
        if told is None:
            raise _MalformedError("it does not say its usage")
        read, written = _tokens(told, "input_tokens"), _tokens(told, "output_tokens")
        stored = _tokens(told, "cache_creation_input_tokens")
        cached = _tokens(told, "cache_read_input_tokens")
        cost = self._price.usd(input=read, output=written, cache_read=cached, cache_write=stored)
        self.last_prompt = read + stored + cached
        self.usage += Usage(
            usd=cost + self._flat,
            input_tokens=read + stored,
            cached_tokens=cached,
            output_tokens=written,
        )
        self._flat = 0.0
        self._spent(self.usage)


def _tokens(told: object, name: str) -> int:
    value = getattr(told, name, None)
    return max(0, int(value)) if isinstance(value, int | float) else 0


class _Provider:
    """The client, and what is known of the server behind it."""

    def __init__(self, config: MessagesProposer, keys: Mapping[str, str]) -> None:
        self.config, self._keys = config, keys
        self.url = config.base_url or keys.get("ANTHROPIC_BASE_URL") or URL
        self.host = urlsplit(self.url).netloc.rpartition("@")[2] or self.url
        self.served = False
        """Whether it has ever answered: if not, the settings are to blame."""
        self.heard = False
        """Whether anything has ever come from it, if only a refusal."""
        self._silences = 0
        self._client: anthropic.Anthropic | None = None

    def missed(self, reason: str) -> None:
        """Note a proposal that came to nothing because the provider is away.

        Raises:
            LockedOutError: it was never there. The address is wrong, or nobody starts the server.
        """
        self._silences += not self.heard
        if self._silences >= SILENT:
            raise LockedOutError(reason, f"is `base_url` right, and does {self.host} run?")

    def client(self) -> anthropic.Anthropic:
        """Give the client.

        Raises:
            LockedOutError: there is no key.
        """
        if self._client is None:
            named: dict[str, Any] = dict(zip(("api_key", "auth_token"), self._shown(), strict=True))
            if is_local(self.url):
                # A proxy for the world outside does not know the servers in here.
                named["http_client"] = anthropic.DefaultHttpxClient(
                    mounts={"http://": None, "https://": None, "all://": None}
                )
            self._client = anthropic.Anthropic(base_url=self.url, max_retries=0, **named)
        return self._client

    def _shown(self) -> tuple[str | None, str | None]:
        """Give key and token, one of them None. Never neither: the SDK would look for one."""
        key = self._keys.get(self._key_name, "").strip()
        own = self.config.key is None and self.config.key_name is not None
        token = self._keys.get("ANTHROPIC_AUTH_TOKEN", "").strip() if own else ""
        if not key and not token:
            if is_local(self.url):
                return _PLACEHOLDER, None
            raise LockedOutError("there is no key for the model's provider", self._set_key())
        if not (key or token).isascii() or not (key or token).isprintable():
            raise LockedOutError("the key has characters that no key has", self._set_key())
        return (key, None) if key else (None, token)

    @property
    def _key_name(self) -> str:
        return self.config.key_name or ""

    def _set_key(self) -> str:
        if not self._key_name:
            return f"name the variable that holds the key for {self.host}: `key: MY_KEY`"
        return f"set {self._key_name} to a key that {self.host} accepts"

    def hint(self, status: int) -> str:
        """Say what helps against being refused."""
        model = self.config.model
        match status:
            case 401:
                return self._set_key()
            case 402:
                return f"see to the payment of the account of {self._key_name} at {self.host}"
            case 403:
                return f"{self._key_name} may not use {model} at {self.host}: another key or model"
            case 404:
                return f"is {model} the model's name at {self.host}, and is `base_url` right?"
            case _:
                return f"change the proposer's settings: {self.host} does not take them for {model}"

    def clean(self, words: str) -> str:
        """Make one short line without keys. A key that is cut in two would be found no more."""
        return tool_loop.one_line(blot(words, secrets(self._keys)))

    def drop(self) -> None:
        """Close all connections; what still reads from one fails."""
        if self._client is not None:
            with suppress(Exception):
                self._client.close()
            self._client = None


class _Request:
    """Sends the conversation of one proposal, again and again, until it is answered."""

    def __init__(
        self, provider: _Provider, system: str, tools: list[Json], bill: _Bill, seed: int
    ) -> None:
        self._provider, self._config, self._bill = provider, provider.config, bill
        self._system, self._tools = system, tools
        self._deadline = time.monotonic() + self._config.timeout
        self._dice = random.Random(seed)

    def ask(self, conversation: Conversation) -> Answer:
        """Get the next answer.

        Raises:
            NoProposalError: there is none.
        """
        body = self._body(conversation)
        for ordinal in range(1, TRIES + 1):
            try:
                return self._once(body)
            except NoProposalError:
                raise
            except _LateError:
                raise self._late() from None
            except Exception as error:
                # Whatever the SDK makes of a broken answer: it has no one error for it.
                trouble = self._trouble(error)
            self._wait(trouble, ordinal)
        raise AssertionError  # `_wait` does not return from the last try

    def _left(self) -> float:
        return self._deadline - time.monotonic()

    def _late(self) -> NoProposalError:
        return NoProposalError(f"the model did not submit within {self._config.timeout:g} s")

    # What is sent.

    def _body(self, conversation: Conversation) -> dict[str, Any]:
        config = self._config
        body: dict[str, Any] = {
            "model": config.model,
            "max_tokens": config.max_tokens,
            "system": [tool_loop.text(self._system) | _CACHED],
            "messages": _marked(conversation),
        }
        if self._tools:
            body["tools"] = self._tools
        if config.effort is not None:
            body["output_config"] = {"effort": config.effort}
        if config.thinking is not None:
            body["thinking"] = _thinking(config.thinking)
        if config.extra:
            body["extra_body"] = config.extra
        return body

    def _once(self, body: dict[str, Any]) -> Answer:
        """Send a request and wait for all of the answer, no longer than there is time."""
        left = self._left()
        if left <= 0:
            raise _LateError
        client = self._provider.client()
        quiet = min(left, QUIET_S) if self._config.stream else left
        limits = anthropic.Timeout(quiet, connect=min(left, CONNECT_S))
        send = _streamed if self._config.stream else _plain
        got = _within(left, lambda: send(client, body | {"timeout": limits}))
        if got is None:
            self._provider.drop()
            raise _LateError
        return self._taken(got)

    def _taken(self, got: _Got) -> Answer:
        """Count an answer, and look whether it is one."""
        message, error = got
        if error is not None:
            # What broke off after its usage had come was made, and is paid for.
            if message is not None and getattr(message, "stop_reason", None) is not None:
                self._bill.add(getattr(message, "usage", None))
            raise error
        content = _content(message)
        stop = getattr(message, "stop_reason", None)
        if stop is None and self._config.stream:
            raise _MalformedError("the stream ended too early")
        self._bill.add(getattr(message, "usage", None))
        self._provider.served = self._provider.heard = True
        details = getattr(message, "stop_details", None)
        detail = getattr(details, "category", None) or getattr(details, "explanation", None)
        return Answer(content, str(stop), self._provider.clean(str(detail or "")))

    # What goes wrong.

    def _wait(self, trouble: _Trouble, ordinal: int) -> None:
        """Wait before the next try.

        Raises:
            NoProposalError: there is none.
        """
        backoff = min(LONGEST_WAIT_S, BACKOFF_S * 2 ** (ordinal - 1)) * self._dice.uniform(0.75, 1)
        wait = backoff if trouble.wait_s is None else trouble.wait_s
        last = ordinal == TRIES or not trouble.again or wait > LONGEST_WAIT_S
        if not last and wait < self._left():
            time.sleep(wait)
            return
        if trouble.down:
            self._provider.missed(trouble.reason)
            asked = LONGEST_WAIT_S if trouble.wait_s is None else trouble.wait_s
            raise UnavailableError(trouble.reason, asked)
        if last and not self._provider.served:
            hint = f"does {self._provider.url} speak the Messages API? See `base_url`"
            raise LockedOutError(trouble.reason, hint)
        raise NoProposalError(trouble.reason) if last else self._late()

    def _trouble(self, error: Exception) -> _Trouble:
        """Tell what a failure means.

        Raises:
            NoProposalError: trying again is of no use.
        """
        host = self._provider.host
        if isinstance(error, anthropic.APIStatusError):
            return self._refused(error)
        if isinstance(error, anthropic.APITimeoutError):
            return _Trouble(f"{host} did not answer in time", True)
        if isinstance(error, anthropic.APIConnectionError) or _is_of_transport(error):
            cause = error.__cause__ or error
            why = self._provider.clean(f"{type(cause).__name__}: {cause}")
            return _Trouble(f"the connection to {host} failed: {why}", True)
        why = self._provider.clean(f"{type(error).__name__}: {error}".removeprefix("_"))
        return _Trouble(f"{host} gave an answer that cannot be read: {why}", False)

    def _refused(self, error: anthropic.APIStatusError) -> _Trouble:
        status, self._provider.heard = error.status_code, True
        if status < 400:
            status = _STATUS_OF.get(str(error.type), 500)
        said = self._provider.clean(_words(error))
        reason = f"{self._provider.host} answered {status} for {self._config.model}: {said}"
        should = error.response.headers.get("x-should-retry")
        if status in (408, 409, 429) or status >= 500 or should == "true":
            wait = _retry_after(error.response.headers)
            return _Trouble(reason, True, wait, again=should != "false")
        if status == 413 or _TOO_LONG.search(said):
            raise NoProposalError(f"the conversation is too long for the model: {said}")
        unpaid = _UNPAID.search(said) is not None
        if status in (401, 402, 403, 404) or unpaid or not self._provider.served:
            hint = self._provider.hint(402 if unpaid and status == 400 else status)
            raise LockedOutError(reason, hint)
        raise NoProposalError(reason)


# --- one request ----------------------------------------------------------------------------------


class _Got(NamedTuple):
    """What came of a request: a message, or how far it came and why not further."""

    message: object | None
    error: Exception | None = None


def _within(seconds: float, work: Callable[[], _Got]) -> _Got | None:
    """Do something, but wait no longer than this; None if it is not done by then.

    The SDK's own limits are those of single reads: what trickles would never reach them.
    """
    box: SimpleQueue[_Got] = SimpleQueue()
    Thread(target=lambda: box.put(work()), name="messages", daemon=True).start()
    try:
        return box.get(timeout=seconds)
    except Empty:
        return None


def _plain(client: anthropic.Anthropic, body: dict[str, Any]) -> _Got:
    try:
        return _Got(client.messages.create(**body))
    except Exception as error:
        return _Got(None, error)


def _streamed(client: anthropic.Anthropic, body: dict[str, Any]) -> _Got:
    so_far: object | None = None
    try:
        with client.messages.stream(**body) as stream:
            for event in stream:
                if event.type == "message_delta":
                    so_far = stream.current_message_snapshot
            return _Got(stream.get_final_message())
    except AssertionError:
        return _Got(None, _MalformedError("there is no message in the stream"))
    except Exception as error:
        return _Got(so_far, error)


def _thinking(setting: str | int) -> Json:
    match setting:
        case "adaptive":
            return {"type": "adaptive"}
        case "off":
            return {"type": "disabled"}
        case _:
            return {"type": "enabled", "budget_tokens": setting}


def _marked(conversation: Conversation) -> list[Json]:
    """Give the messages with breakpoints for the cache: after the files, and at the last blocks of
    the last two messages of ours. With the system's, these are the four that are allowed.
    """
    ours = [m["content"][-1] for m in conversation.messages if m["role"] == "user"][-2:]
    marks = {id(block) for block in (*ours, conversation.fixed) if block is not None}
    return [
        {"role": m["role"], "content": [b | _CACHED if id(b) in marks else b for b in m["content"]]}
        for m in conversation.messages
    ]


def _content(message: object) -> list[Json]:
    """Give an answer's blocks as they are sent back.

    Raises:
        _MalformedError: there are none, or a call has no name.
    """
    content: object = getattr(message, "content", None)
    if not isinstance(content, list):
        raise _MalformedError("it has no content")
    blocks = [_block(block) for block in cast("list[Any]", content)]
    for block in blocks:
        needed = {"tool_use": ("id", "name"), "text": ("text",)}.get(block["type"], ())
        if not all(isinstance(block.get(key), str) for key in needed):
            raise _MalformedError("a block lacks a part")
        if block["type"] == "tool_use":
            block.setdefault("input", {})
    try:
        json.dumps(blocks, ensure_ascii=False).encode()
    except ValueError:
        raise _MalformedError("it is not valid text") from None
    return blocks


def _block(block: Any) -> Json:
    if not isinstance(getattr(block, "type", None), str):
        raise _MalformedError("a block has no type")
    told: Json = block.to_dict(warnings=False)
    return {key: value for key, value in told.items() if value is not None}


def _is_of_transport(error: BaseException) -> bool:
    """Tell whether an error is the HTTP library's, which comes through bare in mid-stream."""
    kinds = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return bool(kinds & {"httpx2", "httpcore2"}) or isinstance(error, OSError)


def _words(error: anthropic.APIStatusError) -> str:
    """Give the server's own words."""
    body = error.body
    said: object = error.api_message
    if not said and isinstance(body, dict):
        told = cast("dict[str, object]", body)
        said = told.get("error") or told.get("message") or told.get("detail")
    return str(said or error.message)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Read how long the provider wants to be left alone: seconds, or a date."""
    said = headers.get("retry-after", "")
    with suppress(ValueError):
        if milliseconds := headers.get("retry-after-ms"):
            return _seconds(float(milliseconds) / 1000)
        return _seconds(float(said))
    with suppress(ValueError, TypeError):
        when = parsedate_to_datetime(said)
        when = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
        return _seconds((when - datetime.now(UTC)).total_seconds())
    return None


def _seconds(value: float) -> float:
    """Keep a wait between nothing and a day."""
    if not value < float("inf"):
        raise ValueError(value)
    return min(max(value, 0.0), 86_400.0)
