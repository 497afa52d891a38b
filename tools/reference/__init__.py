"""One module per generated page of docs/reference, each with `render() -> str`. They read the code and decide nothing."""
