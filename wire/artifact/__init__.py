"""What an engine folder and a checkpoint say of themselves."""
