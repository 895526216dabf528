"""The demonstration: drawn images, a shipped open_clip model, all verbs in a row."""
