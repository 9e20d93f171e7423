"""The `octavo` command. Wires everything; nothing imports this room."""
