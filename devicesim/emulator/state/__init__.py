"""What the emulated accounts hold and AWS's rules for changing it: a module a family, joined by ``emulator.registry``.

Pure: no socket, no logger; the clock and the source of random bytes are arguments of :class:`Environment`.
"""
