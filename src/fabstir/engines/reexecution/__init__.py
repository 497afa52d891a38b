"""Re-execution of answers: prompt and answer through the weights once more, in a process of its own, to see what was
claimed about them."""
