"""The HTTP door: what people and programs ask for, parsed, and the engine's answers as JSON."""
