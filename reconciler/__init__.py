"""autopilot: a Git-native GitOps reconciler for plain hosts (observe, plan, apply)."""

__version__ = "0.1.0"
