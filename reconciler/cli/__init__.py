"""The command line: each verb asks the daemon over its API, or looks at this host itself."""
