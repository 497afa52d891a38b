"""Running the software: places, configuration, health, metrics."""
