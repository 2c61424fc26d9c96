"""`deepeyes view`: recorded episodes in a browser. `index.py` finds them, `episode.py` shows one, `app.py` serves both."""
