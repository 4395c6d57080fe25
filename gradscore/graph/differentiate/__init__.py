"""Pass 4: the engines that differentiate a graph, and the environment that one of them needs."""
