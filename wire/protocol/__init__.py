"""Messages, topics, commands and keys: what travels, and who may say it."""
