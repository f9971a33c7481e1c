"""`python -m flows.cli`: the command `wattledger` where no script of that name is installed."""

from flows.cli.main import main

main()
