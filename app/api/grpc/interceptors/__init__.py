"""What is done around every call, whatever its method and kind: one concern a module. `stack` puts them in order."""
