"""A local model host: the orchestrator's websocket, and one child process per model with the runner's gRPC.

It reads a folder of models and speaks the protocol that the hosted orchestrator speaks, so the
coordinator needs one way to its models and not two. It isolates crashes, memory and time. It does
not isolate network or files: it is for models that you trust, on your own machine.
"""
