"""What both clients share and what does no I/O: requests, results, errors and the state of a stream."""
