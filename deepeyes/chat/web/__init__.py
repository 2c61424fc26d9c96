"""The page of `deepeyes chat --web`: conversations that stream, and records that are replayed step by step."""
