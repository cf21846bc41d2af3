"""Planning: pure decisions. Equal inputs give equal plans; nothing here reads a clock or a file."""
