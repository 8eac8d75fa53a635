"""Events -> verdicts, by the cloud member."""
