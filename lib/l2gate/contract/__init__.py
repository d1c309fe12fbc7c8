"""What a kernel must do, and what a result means."""
