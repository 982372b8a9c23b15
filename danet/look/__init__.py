"""What a network sees in a picture: the maps of the paper's Figures 4, 5 and 6. Command: `danet look`.

`see` runs the network once and keeps little; a `Seen` then answers for any point, channel or module.
"""

from danet.look.seen import Module, Seen, see

__all__ = ["Module", "Seen", "see"]
