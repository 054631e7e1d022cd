"""The load generator of `doherty bench`: each module does one thing, and `_run` ties them together."""
