"""Messages, events, topics, commands and keys."""
