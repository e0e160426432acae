"""Where items come from: one module per external system or kind of file."""
