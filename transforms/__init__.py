"""Pure Polars: frames in, frames out. No I/O, no clock, no settings, no database.

The method is written out in `docs/method.md`; each function names its section.
"""

METHOD_VERSION = "5"
"""Version of docs/method.md; raised when a formula changes."""
