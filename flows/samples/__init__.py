"""Generated readings: the demo's, and those of simulated fleets."""
