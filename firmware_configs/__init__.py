"""From a board's name to a flashed device: board table, hardened units, flash plan. Runs on the integrator's host."""
