"""Grid intensity and generation, from files and providers."""
