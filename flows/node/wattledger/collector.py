"""Another name of `wattledger.collect.collector`, for services that were set up with it."""

from wattledger.collect.collector import run_as_command

if __name__ == "__main__":
    run_as_command()
