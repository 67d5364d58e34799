"""The laboratory's checks say what they found."""

import pytest

pytest.register_assert_rewrite("tests.chaos.short")
