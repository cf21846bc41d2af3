"""The host as a daemon sees it: files that last, processes, sockets, locks. Decides nothing."""
