"""Files and services, through the gate, into the warehouse."""
