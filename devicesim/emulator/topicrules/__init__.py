"""Topic rules: their SQL, its values and functions, and the engine that runs them. Pure."""
