"""Why a device is not connected: evidence in, causes ranked by what speaks for and against each out. Pure."""
