from experiments import command
from experiments.control import compare, train

command.run(train.main, curves=compare.curves, animate=compare.animate)
