"""What a run leaves behind and starts again from: whole files, the best epochs, the state to resume from."""
