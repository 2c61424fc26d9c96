"""Sources of search results. One file a source: `Settings`, and `Provider(settings, web)` with what the source can do.

`search(query, *, max_hits)`, `search_image(image, *, item_id, max_hits)` and `open_page(link)` are its abilities; at least
one. Settings that do not change an answer (keys, addresses, paths) are declared `exclude=True`: a recording's key is made of
the others.
`PRICE_USD` is the list price of one request, if there is one, and `QUERY_LIMIT` the longest query that the source documents:
the model is told of it, and a longer query is its own mistake, for which nothing is sent.
"""
