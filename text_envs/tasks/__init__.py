"""Tasks: where prompts come from and what an utterance earns; one short file per task."""
