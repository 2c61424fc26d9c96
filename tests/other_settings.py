"""For each setting of an agent a value that is not its default."""

OTHER_VALUES = {
    "prompt": "think", "primer": "x", "tools": ("python",), "image_max_pixels": 50_000, "max_observation_images": 20,
    "max_observation_chars": 100, "max_turns": 3, "max_reply_tokens": 7, "max_episode_tokens": 8, "episode_deadline_s": 9.5,
    "reply_deadline_s": 10.5, "tool_deadline_s": 11.5, "max_calls": {"search": 2}, "python_timeout_s": 12.5, "max_hits": 4,
    "show_last_value": True,
    "page_chars": 200, "any_image": True, "search": {"provider": "serper"}, "image_search": {"provider": "local_images"},
    "sandbox_urls": ("http://a:1", "http://b:2"), "sandbox_wait_s": 13.5, "max_sandbox_calls": 5, "max_in_flight": {"policy": 6},
    "mcp": {"files": {"command": ["my-server"]}},
}  # fmt: skip
