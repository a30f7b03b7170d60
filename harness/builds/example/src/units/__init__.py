"""Convert between units, exactly."""
