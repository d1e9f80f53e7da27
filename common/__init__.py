"""Code that the scripts share, a line a room.

start                                 what a script does before its slow imports
errors files tables machine           plain values in, plain values out
launcher signals workers              processes and threads: who started whom, and their end
device                                memory that runs out, float32 that is float32
terminal                              messages beside bars; names that do no harm
options                               command lines
images/                               pixels: resizing, color, files, strips
losses metrics                        tensors in, scalars out; metrics is the protocol
network card                          a network and its model card
curves record                         values as curves, those of runs from their logs; args.json
weights pretrained                    files of a model; the models of this repository
hub_api hub                           the Hugging Face Hub; models by name
data/                                 from a folder or the Hub to patches and benchmarks
evaluation inference sizes            a network over a benchmark, over your pictures, to any size
gallery evaluated page/               what people look at: strips, pages of HTML
exports/                              a network as files for programs without PyTorch
training/                             the books of one run, for `train_*.py` alone
"""
