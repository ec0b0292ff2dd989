"""The web page on which people compare completions. Loaded by `serve` only: it needs the extra `feedback`."""
