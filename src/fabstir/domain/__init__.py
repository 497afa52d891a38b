"""The nouns of the market: ids, money, terms, errors. Imports nothing of ours."""
