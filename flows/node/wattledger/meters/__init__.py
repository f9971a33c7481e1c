"""What measures: GPU drivers, exporters, host counters."""
