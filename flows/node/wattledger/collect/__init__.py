"""The collector: reads the meters, and loses nothing."""
