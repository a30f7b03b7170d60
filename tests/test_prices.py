"""What a proposer's tokens cost: by its config, by the table, not at all, or unknown."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from genai_prices import Usage, calc_price
from hypothesis import given
from hypothesis import strategies as st

from swarm.groups import AgentGroup, ProposerConfig
from swarm.prices import Price, price_of, reports_tokens, reports_usd


def proposer(kind: str, **fields: Any) -> ProposerConfig:
    return AgentGroup.model_validate({"proposer": {"kind": kind, **fields}}).proposer


def messages(model: str = "claude-opus-5-5", **fields: Any) -> ProposerConfig:
    return proposer("messages", model=model, **fields)


def headless(cli: Any, **fields: Any) -> ProposerConfig:
    return proposer("headless", cli=cli, **fields)


def priced(given: ProposerConfig, **keys: str) -> Price:
    found = price_of(given, keys)
    assert found is not None
    return found


tokens = st.integers(0, 100_000)


@given(tokens, tokens, tokens, tokens)
@pytest.mark.parametrize("model", ["claude-opus-5-5", "claude-haiku-5-5", "claude-sonnet-4-5"])
def test_the_tables_own_reckoning_gives_the_same(
    model: str, plain: int, out: int, read: int, write: int
) -> None:
    if plain + read + write > 100_000:  # longer requests are on a higher step of some
        plain, read, write = plain // 4, read // 4, write // 4
    usage = Usage(
        input_tokens=plain + read + write,
        output_tokens=out,
        cache_read_tokens=read,
        cache_write_tokens=write,
    )
    theirs = calc_price(usage, model, provider_id="anthropic").total_price
    ours = priced(messages(model)).usd(input=plain, output=out, cache_read=read, cache_write=write)
    assert ours == pytest.approx(float(theirs), rel=1e-9, abs=1e-12)


def test_a_known_model_has_four_rates() -> None:
    found = priced(messages("claude-opus-5-5"))
    assert found.proposal == 0
    assert 0 < found.cache_read < found.input < found.cache_write < found.output


def test_of_steps_the_lowest_is_taken() -> None:
    table = calc_price(Usage(input_tokens=0, output_tokens=0), "claude-sonnet-4-5").model_price
    base = getattr(table.input_mtok, "base", None)
    assert base is not None, "this test wants a model with steps"
    assert priced(messages("claude-sonnet-4-5")).input == pytest.approx(float(base) / 1e6)


def test_a_model_without_a_price_for_cached_tokens() -> None:
    found = priced(messages("claude-2"))
    assert found.cache_read == found.input
    assert found.cache_write == pytest.approx(1.25 * found.input)


def test_the_configs_prices_win() -> None:
    flat = priced(messages("nobody-knows-it", prices={"proposal": 0.5}))
    assert flat == Price(proposal=0.5)
    some = priced(messages(prices={"input": 2, "output": 10}))
    assert some == pytest.approx((2e-6, 1e-5, 2e-6, 2e-6, 0))
    fields = {"input": 2, "output": 10, "cache_read": 0, "cache_write": 3, "proposal": 0.01}
    local = messages(prices=fields, base_url="http://localhost:1234")
    assert priced(local) == pytest.approx((2e-6, 1e-5, 0, 3e-6, 0.01))
    assert priced(headless(["./mine"], prices={"proposal": 1})).proposal == 1
    assert priced(headless("claude", prices={"input": 1, "output": 1})).input == 1e-6


def test_what_thinks_nothing_costs_nothing() -> None:
    assert price_of(proposer("mutate"), {}) == Price()


@pytest.mark.parametrize(
    "url",
    ["http://localhost:11434", "http://127.0.0.1:8080/x", "http://10.1.2.3", "http://[::1]:1"],
)
def test_a_server_on_this_machine_costs_nothing(url: str) -> None:
    assert price_of(messages("qwen", base_url=url), {}) == Price()
    assert price_of(messages("qwen"), {"ANTHROPIC_BASE_URL": url}) == Price()
    assert price_of(headless("claude"), {"ANTHROPIC_BASE_URL": url}) == Price()
    assert price_of(headless("codex", model="qwen"), {"OPENAI_BASE_URL": url}) == Price()


def test_whose_prices_they_are() -> None:
    own = priced(messages())
    assert priced(messages(base_url="https://api.anthropic.com/v1")) == own
    assert priced(messages(), ANTHROPIC_BASE_URL="https://api.anthropic.com") == own
    assert priced(messages("deepseek-chat", base_url="https://api.deepseek.com/anthropic")).output
    assert price_of(messages("deepseek-chat"), {}) is None, "Anthropic has no such model"
    assert price_of(messages(), {"ANTHROPIC_BASE_URL": "https://gateway.example.com"}) is None
    evil = messages(base_url="https://gateway.example.com/api.anthropic.com")
    assert price_of(evil, {}) is None
    config_wins = messages(base_url="https://api.anthropic.com")
    assert priced(config_wins, ANTHROPIC_BASE_URL="http://localhost") == own


@pytest.mark.parametrize(
    ("cli", "model", "known"),
    [
        ("claude", "claude-opus-5-5", True),
        ("codex", "gpt-5.6", True),
        ("gemini", "gemini-2.5-pro", True),
        ("aider", "anthropic/claude-opus-5-5", True),
        ("opencode", "openai/gpt-5.6", True),
        ("aider", "gemini/gemini-2.5-pro", True),
        ("opencode", "nowhere/gpt-5.6", False),
        ("codex", "nobody-knows-it", False),
        ("claude", None, False),
        ("codex", None, False),
        ("gemini", None, False),
        ("aider", None, False),
        ("opencode", None, False),
    ],
)
def test_programs_are_priced_by_their_model(cli: str, model: str | None, known: bool) -> None:
    found = price_of(headless(cli, model=model), {})
    assert (found is not None) == known
    assert found is None or found.output > 0


def test_any_program_has_no_price() -> None:
    assert price_of(headless(["./mine", "gpt-5.6"]), {}) is None


def test_who_tells_what_it_has_used() -> None:
    told = {cli: reports_usd(headless(cli)) for cli in ("claude", "codex", "gemini", "opencode")}
    assert told == {"claude": True, "codex": False, "gemini": False, "opencode": True}
    assert not reports_usd(headless("aider"))
    assert not reports_usd(messages())
    assert not reports_usd(headless(["claude"]))
    assert not reports_tokens(headless(["claude"]))
    assert reports_tokens(headless("claude"))
    assert reports_tokens(messages())


def test_the_table_is_not_loaded_before_it_is_asked() -> None:
    code = "import sys, swarm.prices, swarm.cli; sys.exit('genai_prices' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
