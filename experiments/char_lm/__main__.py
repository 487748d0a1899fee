from experiments import command
from experiments.char_lm import compare, gates, sampling, train

command.run(train.main, sample=sampling.main, compare=compare.main, gates=gates.main)
