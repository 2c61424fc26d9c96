"""Runs the model's Python in stateful sessions: client, wire types and errors here, the server in `code_sandbox.server`."""
