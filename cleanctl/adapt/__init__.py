"""DeFT (docs/method.md C): positive and negative prompts of each class, learnt from the noisy labels themselves."""
