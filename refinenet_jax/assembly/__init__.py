"""What a config asks for, made of the rooms below, which take plain values."""
