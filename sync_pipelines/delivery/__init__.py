"""Where single changes come in: the receiver put together with the runner, and the same without HTTP."""
