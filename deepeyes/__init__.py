"""The deepeyes command and its programs: chat, doctor, plan, search, attack; the quickstart."""
