"""Fixtures; and the contract, which is in no test file, says what differed when it fails."""

import pytest

from llm import rounds
from tests.models import brief_model, endless_model, llamacpp

pytest.register_assert_rewrite("tests.contracts.providers")

__all__ = ["brief_model", "endless_model", "llamacpp"]  # the fixtures that the tests here use


@pytest.fixture(autouse=True)
def no_pause_between_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each piece that a server sends be a read of its own; test_rounds.py has the pause."""
    monkeypatch.setattr(rounds, "PAUSE", 0.0)
