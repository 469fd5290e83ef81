"""Published formats, in and out; nothing here is ever unpickled."""
