"""Recorded episodes for people: a server with filters, and one page that stands alone."""
