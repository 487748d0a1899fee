from experiments import command
from experiments.translate import train

command.run(train.main)
