"""Lets the contract, which is in no test file, say what differed when it fails."""

import pytest

pytest.register_assert_rewrite("tests.contracts.providers")
