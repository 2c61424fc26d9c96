"""The deepeyes command and its programs: chat, doctor, plan, search; the quickstart."""
