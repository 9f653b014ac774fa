"""Fixtures; and the contract, which is in no test file, says what differed when it fails."""

import pytest

from tests.models import brief_model, endless_model, llamacpp

pytest.register_assert_rewrite("tests.contracts.providers")

__all__ = ["brief_model", "endless_model", "llamacpp"]  # the fixtures that the tests here use
