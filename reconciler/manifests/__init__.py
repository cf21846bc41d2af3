"""Manifests: from the bytes of `.autopilot/` to desired state, or to every problem at once."""
