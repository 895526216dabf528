"""Images to embeddings: the open_clip encoder, prompts, the loop that fills the store, arrays made elsewhere."""
