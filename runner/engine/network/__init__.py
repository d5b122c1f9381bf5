"""ONNX -> a batchable network -> the bound graph, replayed against ONNX Runtime."""
