"""Addresses as they may be shown."""

import pytest

from code_sandbox.server.store import SessionStore
from serving.urls import without_logins


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://judge:hunter2@host:18901/v1", "http://***@host:18901/v1"),
        ("redis://:p@ss@host:6379/0", "redis://***@host:6379/0"),
        ("a http://u:hunter2@one/v1,http://u:hunter2@two/v1", "a http://***@one/v1,http://***@two/v1"),
        ("http://host/v1?to=me@example.org", "http://host/v1?to=me@example.org"),
        ("me@example.org", "me@example.org"),
    ],
)
def test_a_login_in_a_url_is_shown_to_nobody(text, shown):
    assert without_logins(text) == shown
    assert without_logins({"agent": {"judge": {"base_urls": [text]}, "max_turns": 4}}) == {
        "agent": {"judge": {"base_urls": [shown]}, "max_turns": 4}
    }


async def test_a_redis_that_is_away_is_named_without_its_password():
    with pytest.raises(ConnectionError, match=r"no Redis at redis://\*\*\*@127\.0\.0\.1:9/0 ") as raised:
        await SessionStore("redis://:hunter2@127.0.0.1:9/0").ping()
    assert "hunter2" not in str(raised.value)
