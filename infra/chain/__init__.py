"""Ways to see the chain: `coordinator.streams.ports.ChainPort`, by name in `CHAIN`."""
