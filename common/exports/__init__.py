"""A network as files for programs without PyTorch: ONNX, ncnn, a page for the browser."""
