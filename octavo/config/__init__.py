"""What the user may choose: frozen groups of documented fields, how they resolve, how they are spelled."""
