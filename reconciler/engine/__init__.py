"""The engine: observe, plan, apply, repeated. Sees ports, never what is behind them."""
