"""How the inside of a call is written. A format names one of these and gives it its markers."""
