"""People's preferences: comparisons of completions, kept, collected and measured. Needs the extra `feedback`."""
