"""Generated from proto/doherty/v1 by `make proto`: the messages and stubs of the API. Do not edit."""
