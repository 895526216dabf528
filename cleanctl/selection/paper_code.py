"""What `--compat paper-code` does as the published code does, shown in its summary (docs/method.md A and F)."""

DEVIATIONS = (
    "Prompts are summed, so a class with more prompts has the better odds.",
    "The logistic model scores the rows it was trained on.",
    "The mixtures start from scikit-learn's k-means on one random stream, zero-shot classes first, then logistic.",
    "The posterior of the clean component may fall as the score rises; it is used as it is.",
    "A class without survivors is given its samples of lowest zero-shot score, the worst ones.",
    "kNN counts each image as its own neighbour.",
    "Classes without samples, with one, or with equal scores stop the run.",
    "Embeddings come from the store in float16; the published code keeps them in float32.",
)
