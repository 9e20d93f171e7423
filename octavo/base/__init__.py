"""Ground floor: errors, clock, environment, logging, lazy tables. Imports nothing of ours."""
