"""Where feed records come from: shells over sockets, files and a made-up market. Start at `catalog`."""
