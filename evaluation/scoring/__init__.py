"""How answers are scored: named profiles, shared rules, and the judge behind them."""
